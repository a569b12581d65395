"""Rankings of pruning methods on encoded pictures: a method that only ranks tokens is scored once for all budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.evaluator import Positions
from salience.lab.evaluate.packed_answers import PackedAnswers, answer
from salience.vlm.families import Adapter
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scored(Method):
    """A method with known scores."""

    name = "scored"
    scores: Tensor

    def score(self, ctx: TokenContext) -> Tensor:
        return self.scores


class Ranking:
    """One method on encoded pictures, at any budget."""

    def __init__(self, method: Method, pictures: EncodedPictures) -> None:
        self.method, self.pictures = method, pictures
        self._last: tuple[Budget, list[Selection]] | None = None
        self._scores: list[Tensor] = []
        if method.ranks:
            with torch.no_grad():
                self._scores = [method.checked_scores(pictures.context(picture)) for picture in range(len(pictures))]

    def selections(self, budget: Budget) -> list[Selection]:
        """Return the tokens that stay of each picture. The last budget's are remembered."""
        if self._last is None or self._last[0] != budget:
            # One picture at a time: methods that select token by token need (n, n) numbers for each picture.
            methods: list[Method] = [_Scored(scores=scores) for scores in self._scores]
            methods = methods or [self.method] * len(self.pictures)
            contexts = map(self.pictures.context, range(len(self.pictures)))
            self._last = budget, [one.select(ctx, budget) for one, ctx in zip(methods, contexts, strict=True)]
        return self._last[1]

    def kept(self, keep: float) -> list[Tensor]:
        """Return (k,) rising token numbers for each picture."""
        return [selection.kept for selection in self.selections(Budget(keep=keep))]


class RankedPictures:
    """Encoded pictures with the rankings of methods on them, and the answers from all of their tokens.

    positions: of the kept tokens, as in `salience.prune`
    """

    def __init__(self, adapter: Adapter, pictures: EncodedPictures, *, positions: Positions = "original") -> None:
        self.adapter, self.pictures, self.positions = adapter, pictures, positions
        self._rankings: dict[int, tuple[Method, Ranking]] = {}  # holds the method, so that its id is not used again

    def __len__(self) -> int:
        return len(self.pictures)

    def ranking(self, method: Method) -> Ranking:
        """Return the method's ranking, which is made once."""
        if id(method) not in self._rankings:
            ranking = Ranking(method.to(self.pictures.features.device), self.pictures)
            self._rankings[id(method)] = (method, ranking)
        return self._rankings[id(method)][1]

    def every(self) -> list[Tensor]:
        """Return all token numbers (n,) for each picture."""
        return [torch.arange(self.pictures.features.shape[1])] * len(self)

    @cached_property
    def all_tokens(self) -> PackedAnswers:
        """Teacher-forced answers from all tokens: the reference of `answer_kl`."""
        return answer(self.adapter, self.pictures, self.every(), positions=self.positions)


@torch.no_grad()
def merged_tokens(adapter: Adapter, pictures: EncodedPictures, selections: Sequence[Selection]) -> list[Tensor] | None:
    """Return (k, d_llm) projected tokens for each picture, or None where no selection merges: rows of `projected`."""
    if all(selection.merge is None for selection in selections):
        return None
    return [adapter.project(one.take(pictures.features[i])) for i, one in enumerate(selections)]


def works_inside(method: type[Method]) -> bool:
    """Whether a kind of method works inside the vision tower or the language model."""
    return method.in_tower or issubclass(method, InLLMMethod)
