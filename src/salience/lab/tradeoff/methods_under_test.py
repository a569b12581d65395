"""Methods under test, with their seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from salience.lab.data.scene_pictures import SIDE
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.picture_tasks import PictureTask
from salience.lab.tradeoff.config import (
    DEFAULT_METHODS,
    ORACLE,
    ORACLE_QUESTION,
    RIVALS,
    SHUFFLED,
    UNTRAINED,
    WITHOUT_BOXES,
    named_inside,
    of_table,
)
from salience.lab.tradeoff.context import RunContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.oracle import Oracle
from salience.vlm.methods.random import Random
from salience.vlm.methods.registry import METHODS, method_class
from salience.vlm.methods.saliency import Saliency
from salience.vlm.methods.uniform import Uniform
from salience.vlm.scorers.scorer import untrained_scorer

#: Controls, and an oracle that is measured in another way.
_SAME_COST = {SHUFFLED: "saliency", UNTRAINED: "saliency", ORACLE_QUESTION: ORACLE}
_NO_SCORER = (
    "methods name 'saliency', but there is no scorer made for exactly this model: train one with `salience fit`, or "
    "leave it out."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodUnderTest:
    """One method of the comparison.

    name, seed: as the rows have them   method: for the test pictures
    """

    name: str
    seed: int
    method: Method

    @property
    def cost(self) -> str:
        """Name of the method whose cost is the same."""
        return _SAME_COST.get(self.name, self.name)


def methods_under_test(context: RunContext, task: PictureTask, *, boxes: bool) -> list[MethodUnderTest]:
    """Return the methods to compare, in the order of the rows.

    Args:    boxes: whether methods that need the boxes of items, or the study's own training, can be measured
    Raises:  ValueError for a named method that can't be measured here
    """
    config = context.config
    named = config.methods or ()
    if "saliency" in named and not context.scorers:
        raise ValueError(_NO_SCORER)
    require_measurable(named, config.task, boxes=boxes, shuffled=context.shuffled is not None)
    names = named or _default_names(context, DEFAULT_METHODS if boxes else WITHOUT_BOXES)
    found = [method for method in _all(context, task, names) if method.name in names]
    # Without boxes the rows come in the order in which methods were named.
    return found if boxes else sorted(found, key=lambda method: names.index(method.name))


def require_measurable(names: Collection[str], task: str, *, boxes: bool, shuffled: bool = False) -> None:
    """Raise ValueError for a method that needs boxes or training which there are not."""
    if SHUFFLED in names and not shuffled:
        raise ValueError(
            f"methods name {SHUFFLED!r}, a scorer fitted to shuffled targets, which only `salience study` makes."
        )
    for name in names:
        if not boxes and name in (ORACLE, ORACLE_QUESTION, SHUFFLED):
            raise ValueError(f"methods: {name!r} needs boxes or training, which task {task!r} does not have here.")


def require_carried(evaluator: GenerateEvaluator, methods: Sequence[MethodUnderTest], keep: float) -> str | None:
    """Answer one question with each method at the smallest ratio, before hours of work.

    Returns: a clause that names the inputs which replace others, such as received attention for [CLS] attention
    Raises:  ValueError as `salience.prune` does, for a method that this model can't carry
    """
    first = {method.name: method.method for method in reversed(methods)}
    names = dict.fromkeys(method.name for method in methods)
    substitutes = [evaluator.check(first[name], Budget(keep=keep)) for name in names]
    return "; ".join(dict.fromkeys(filter(None, substitutes))) or None


def oracle_for(groups: Sequence[Sequence[Any]]) -> Oracle:
    """Return the oracle that knows the boxes of all items in these pictures."""
    return Oracle(boxes=[group[0].boxes for group in groups], image_size=(SIDE, SIDE))


def _default_names(context: RunContext, names: Sequence[str]) -> list[str]:
    """The default methods, without those that read a tower's attention where it has none."""
    if context.adapter.tower_attention is not None:
        return list(names)
    return [name for name in names if not (name in METHODS and method_class(name).needs & {"cls_attention", "keys"})]


def _all(context: RunContext, task: PictureTask, names: Sequence[str]) -> Iterator[MethodUnderTest]:
    """Every method that this run has or that is named."""
    config, seed = context.config, context.config.seed
    row = partial(MethodUnderTest, seed=seed)
    for fitted_with, scorer in context.scorers.items():
        yield row(name="saliency", seed=fitted_with, method=Saliency(scorer=scorer.eval()))
    for draw in range(seed, seed + config.draws):
        yield row(name="random", seed=draw, method=Random(seed=draw))
    yield row(name="uniform", method=Uniform())
    yield row(name="cls-attention", method=ClsAttention())
    published = [row(name=name, method=method_class(name)()) for name in config.methods or RIVALS if of_table(name)]
    yield from (method for method in published if not named_inside(method.name))
    if ORACLE in names:
        yield row(name=ORACLE, method=oracle_for(task.groups))
    if context.shuffled is not None:
        yield row(name=SHUFFLED, method=Saliency(scorer=context.shuffled.eval()))
    if UNTRAINED in names and (context.scorers or config.methods):
        hidden = next((scorer.config.hidden for scorer in context.scorers.values()), 64)
        for own in range(seed, seed + config.untrained):
            scorer = untrained_scorer(context.adapter.d_features, seed=own, hidden=hidden)
            yield row(name=UNTRAINED, seed=own, method=Saliency(scorer=scorer.eval()))
    if ORACLE_QUESTION in names:
        yield row(name=ORACLE_QUESTION, method=oracle_for(task.groups))
    yield from (method for method in published if named_inside(method.name))
