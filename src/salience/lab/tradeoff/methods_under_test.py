"""The methods of a trade-off, each with its seed: what ranks the tokens of encoded pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

import salience
from salience.core.types import Selection, TokenContext
from salience.lab.data.scene_pictures import SIDE
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.tradeoff.config import TradeoffConfig
from salience.vlm.families import Adapter
from salience.vlm.methods import METHODS as TABLE
from salience.vlm.methods import method_class
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.oracle import Oracle
from salience.vlm.methods.random import Random
from salience.vlm.methods.saliency import Saliency
from salience.vlm.methods.uniform import Uniform
from salience.vlm.scorers.scorer import Scorer, untrained_scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """One line of the comparison. name, seed: as the rows have them   cost: the arm whose cost is this one's too
    method: the method for these pictures   known: the same, where it does not depend on which they are, as an oracle
    does"""

    name: str
    seed: int
    cost: str
    method: Callable[[EncodedPictures], Method]
    known: Method | None = None


def by_default(adapter: Adapter, names: Iterable[str]) -> list[str]:
    """The methods under test where none are named; without those that need a tower's attention where it has none."""
    if adapter.tower_attention is not None:
        return list(names)
    return [name for name in names if not (name in TABLE and method_class(name).needs & {"cls_attention", "keys"})]


def admit(adapter: Adapter, methods: Iterable[Method], keep: float, *, positions: str) -> str | None:
    """Look whether a model can carry methods, before hours of work. Returns: what stands in for what, a clause, or None

    Raises:  ValueError as `salience.prune` does, for a method that this model can't carry
    """
    substitutes = []
    for method in methods:
        with salience.prune(adapter.model, method, keep=keep, positions=positions) as pruned:  # type: ignore[arg-type]
            substitutes.append(pruned.substitute)
    return "; ".join(dict.fromkeys(filter(None, substitutes))) or None


def training_free(draws: int, seed: int) -> list[Arm]:
    """`draws` random ones, the uniform grid, and [CLS] attention."""
    arms = [_arm("random", seed + draw, Random(seed=seed + draw)) for draw in range(draws)]
    return [*arms, _arm("uniform", seed, Uniform()), _arm("cls-attention", seed, ClsAttention())]


def published(names: Sequence[str], seed: int) -> list[Arm]:
    """Methods of the library's table by name."""
    return [_arm(name, seed, method_class(name)()) for name in names]


def learned(scorer: Scorer, seed: int, *, name: str = "saliency") -> Arm:
    """A fitted scorer; controls, under other names, cost what `saliency` costs."""
    return replace(_arm(name, seed, Saliency(scorer=scorer.eval())), cost="saliency")


def untrained(adapter: Adapter, config: TradeoffConfig, fitted: Mapping[int, Scorer]) -> list[Arm]:
    """Scorers with random weights, of the size of the fitted ones where there are any."""
    hidden = next((scorer.config.hidden for scorer in fitted.values()), 64)
    seeds = range(config.seed, config.seed + config.untrained)
    blank = {seed: untrained_scorer(adapter.d_features, seed=seed, hidden=hidden) for seed in seeds}
    return [learned(scorer, seed, name="saliency-untrained") for seed, scorer in blank.items()]


def oracle(seed: int) -> Arm:
    """The oracle of all items, a reference that needs labels."""
    return Arm(name="oracle", seed=seed, cost="oracle", method=oracle_method)


def oracle_method(pictures: EncodedPictures) -> Method:
    """The oracle that knows where every item of these pictures lies."""
    return Oracle(boxes=[group[0].boxes for group in pictures.samples], image_size=(SIDE, SIDE))


def _arm(name: str, seed: int, method: Method) -> Arm:
    return Arm(name=name, seed=seed, cost=name, method=lambda pictures: method, known=method)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scored(Method):
    """A method whose scores are known: so that one scoring serves every ratio through the same top k."""

    name: ClassVar[str] = "scored"
    scores: Tensor

    def score(self, ctx: TokenContext) -> Tensor:
        return self.scores


class Ranking:
    """One arm on encoded pictures, cut at any ratio; what only ranks is scored once."""

    def __init__(self, method: Method, pictures: EncodedPictures) -> None:
        self.method, self.pictures = method, pictures
        self.scores: list[Tensor] = []
        if method.ranks:
            with torch.no_grad():
                self.scores = [method.checked_scores(pictures.context(picture)) for picture in range(len(pictures))]

    def selections(self, keep: float) -> list[Selection]:
        """For each picture what stays."""
        budget = Budget(keep=keep)
        if not self.method.ranks:  # a picture at a time: what is chosen one by one needs (n, n) numbers for each
            return [self.method.select(self.pictures.context(picture), budget) for picture in range(len(self.pictures))]
        return [
            _Scored(scores=scores).select(self.pictures.context(picture), budget)
            for picture, scores in enumerate(self.scores)
        ]

    def kept(self, keep: float) -> list[Tensor]:
        """For each picture the (k,) tokens kept, rising."""
        return [selection.kept for selection in self.selections(keep)]

    @torch.no_grad()
    def visual(self, adapter: Adapter, selections: Sequence[Selection]) -> list[Tensor] | None:
        """For each picture (k, d_llm), what the language model sees; None where that is rows of `projected`."""
        if all(selection.merge is None for selection in selections):
            return None
        return [adapter.project(one.take(self.pictures.features[i])) for i, one in enumerate(selections)]


def question_cuts(pictures: EncodedPictures, keep: float) -> list[tuple[int, Tensor, list[int]]]:
    """What the oracle of the items asked about keeps: (picture, kept (k,), numbers of the questions it serves).

    Questions about the same items share a cut.
    """
    found = []
    budget = Budget(keep=keep)
    for picture, group in enumerate(pictures.samples):
        about: dict[tuple[int, ...], list[int]] = {}
        for number, sample in enumerate(group):
            about.setdefault(tuple(sorted(sample.about)), []).append(number)
        for items, numbers in about.items():
            boxes = [group[0].boxes[item] for item in items]
            method = Oracle(boxes=[boxes], image_size=(SIDE, SIDE))
            context = TokenContext(features=pictures.features[picture], grid=pictures.grid)
            found.append((picture, method.select(context, budget).kept, numbers))
    return found
