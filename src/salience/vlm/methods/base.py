"""The base of every method: a method scores tokens; ranking, budget and raster order live here, once.

A method whose choice is more than a ranking (tokens chosen one after the other, merged, or as many as it finds) gives
`choose` in place of `score`, and sees all pictures of one size at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.finite import require_finite
from salience.vlm.scorers.scorer import Scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """A pruning method. A subclass gives `name` and `score`; `needs` names the context's optional fields it reads.

    `scored` is False where `score` only ranks (a draw, a fixed order), and where there is `choose` in its place: a
    `mass` budget is then refused, and selections carry no scores but what `choose` puts there. `in_tower`: it merges
    tokens inside the vision tower, as `merges` says, and `choose` only finds what is left. `needs_all`: it looks at
    places or layers, and can't choose among the tokens that another method left.
    """

    name: ClassVar[str] = "method"
    needs: ClassVar[frozenset[str]] = frozenset()
    scored: ClassVar[bool] = True
    in_tower: ClassVar[bool] = False
    needs_all: ClassVar[bool] = False

    def score(self, ctx: TokenContext) -> Tensor:
        """(n,) a number a token, the highest stay."""
        raise NotImplementedError

    def shares(self, scores: Tensor) -> Tensor:
        """(..., n) scores -> each token's share of the mass, adding up to 1: the softmax, or what a method says."""
        return scores.softmax(-1)

    def towers(self) -> list[Mapping[str, Any]]:
        """Fingerprints of the vision towers that scorers in it were trained on: `prune` refuses any other tower."""
        return [tower for value in vars(self).values() for tower in _towers(value)]

    def check(self, *, d_features: int) -> None:
        """Raise a ValueError if the method cannot work on features `d_features` wide."""

    def merges(self, n: int, layers: int, budget: Budget) -> Sequence[int]:
        """How many of n tokens are merged away in each of a vision tower's layers, where `in_tower`."""
        return [0] * layers

    def remark(self, contexts: Sequence[TokenContext]) -> str:
        """What the trace has to say of a call with these pictures: what stands in for what, a clause; mostly empty."""
        return ""

    def to(self, device: torch.device) -> Method:
        """The same method with its weights, if it has any, on `device`; never moves the caller's own."""
        return self

    def select(self, ctx: TokenContext, budget: Budget) -> Selection:
        """The tokens of one picture that stay, ties going to the earlier token; see `select_all`."""
        return self.select_all([ctx], budget)[0]

    @torch.no_grad()
    def select_all(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        """The tokens of each picture that stay; pictures of one size are ranked together, with one copy to the CPU.

        Where the budget is all tokens, all stay as they are, whatever the method.

        Raises:  ValueError when a context lacks what `needs` names, the scores are not one a token or what is ranked
                 is not finite, or the budget cannot be met
        """
        if len({ctx.features.shape[0] for ctx in contexts}) > 1:
            groups = itertools.groupby(contexts, key=lambda ctx: ctx.features.shape[0])  # a video's frames are of one
            return [one for _, group in groups for one in self.select_all(list(group), budget)]
        for ctx in contexts:
            self._require_needs(ctx)
        n = contexts[0].features.shape[0]
        if not self.ranks and (budget.mass is None or not self.scored) and budget.count(n) == n:
            return [Selection(kept=torch.arange(n)) for _ in contexts]
        for ctx in contexts:
            self._require_finite(ctx)
        found = self.choose(contexts, budget)
        for one in found:
            self.check_selection(one, n)
        return found

    @property
    def ranks(self) -> bool:
        """Whether `score` says it all: what stays at a budget is the top k, so one scoring serves every budget."""
        return type(self).choose is Method.choose

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        """The tokens of each picture that stay, the pictures of one size and the budget less than all: the top k."""
        scores = torch.stack([self.checked_scores(ctx) for ctx in contexts])  # (pictures, n)
        counts = budget.counts(scores, self._finite_shares if self.scored else None)
        ranked = scores.sort(dim=1, descending=True, stable=True).indices.cpu()
        reported: Sequence[Tensor | None] = list(scores.cpu()) if self.scored else [None] * len(contexts)
        return [
            Selection(kept=order[:k].sort().values, scores=row)
            for order, k, row in zip(ranked, counts, reported, strict=True)
        ]

    def _finite_shares(self, scores: Tensor) -> Tensor:
        shares = self.shares(scores)
        require_finite(shares, self.name, "shares of the mass")
        return shares

    def _require_needs(self, ctx: TokenContext) -> None:
        for field in sorted(self.needs - {"frame"}):  # None for a picture
            if getattr(ctx, field) is None:
                raise ValueError(f"method {self.name!r} needs {field}, which this model or call does not give.")

    def checked_scores(self, ctx: TokenContext) -> Tensor:
        """`score`, (n,) float32.

        Raises:  ValueError when they are not a tensor, one real number a token, or not finite
        """
        given, n = self.score(ctx), ctx.features.shape[0]
        if not isinstance(given, Tensor) or given.is_complex():
            kind = "complex ones" if isinstance(given, Tensor) else f"a {type(given).__name__}"
            raise ValueError(f"method {self.name!r} must give a tensor of {n} real scores, not {kind}.")
        if given.shape != (n,):
            raise ValueError(f"method {self.name!r} must give {n} scores, not a tensor of shape {tuple(given.shape)}.")
        scores = given.float()
        require_finite(scores, self.name, "scores", dtype=given.dtype)
        return scores

    def _require_finite(self, ctx: TokenContext) -> None:
        """Raise a ValueError where what a method looks at has numbers that cannot be ranked."""
        seen = set(self.needs & {"cls_attention", "keys", "projected"})
        if not self.ranks and not self.in_tower:  # what only ranks has its scores looked at
            seen.add("features")
        for field in sorted(seen):
            require_finite(getattr(ctx, field), self.name, f"{field.replace('_', ' ')} values")

    def check_selection(self, found: Selection, n: int) -> None:
        """Raise a ValueError for tokens that are not there, and for scores that nobody could rank."""
        kept = found.kept
        rising = kept.dim() == 1 and kept.numel() > 0 and bool((kept[1:] > kept[:-1]).all())
        if kept.dtype != torch.int64 or not rising or int(kept[0]) < 0 or int(kept[-1]) >= n:
            raise ValueError(
                f"method {self.name!r} must keep at least one of {n} tokens, each once, as rising int64 numbers from 0 "
                f"to {n - 1}, not {kept!r:.200}."
            )
        if found.scores is not None:
            require_finite(found.scores, self.name, "scores")


def _towers(value: object) -> Iterator[Mapping[str, Any]]:
    """The towers that a method's field, a scorer, another method or several of them, was made for."""
    if isinstance(value, Method):
        yield from value.towers()
    elif isinstance(value, Scorer) and value.config.model:
        yield value.config.model
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _towers(one)
    elif isinstance(value, dict):
        yield from _towers(list(value.values()))
