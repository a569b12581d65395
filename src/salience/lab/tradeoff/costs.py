"""Cost columns of a trade-off: by stage where pictures are encoded, else a clock around `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from salience.lab.evaluate.encoded_pictures import EncodedPictures, adapter_dtype
from salience.lab.evaluate.evaluator import AnswerSettings
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.picture_tasks import PictureTask
from salience.lab.evaluate.ranking import works_inside
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.generate_latency import generate_latency
from salience.lab.tradeoff.in_llm_costs import measure_costs, rounds
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.lab.tradeoff.stage_costs import Case, CostColumns, Costs


def stage_costs(context: RunContext, test: EncodedPictures, methods: Sequence[MethodUnderTest]) -> Costs:
    """Return the cost of each stage, measured on the first test picture's first question."""
    adapter, config, device = context.adapter, context.config, test.features.device
    pixels = context.processor.image_processor([test.samples[0][0].image], return_tensors="pt")["pixel_values"]
    case = Case(pixels=pixels.to(device, adapter_dtype(adapter)), prompt=test.prompts[0][0])
    moved = {method.cost: method.method.to(device) for method in methods}
    inside = {name: method for name, method in moved.items() if works_inside(type(method))}
    before = {name: method for name, method in moved.items() if name not in inside}
    steps = rounds(len(before), len(inside), len(config.keeps), config.repeats)
    return _stored(
        context, steps,
        lambda tick: measure_costs(adapter, case, before, inside, config.keeps, repeats=config.repeats, tick=tick),
    )  # fmt: skip


def generate_costs(
    context: RunContext, task: PictureTask, settings: AnswerSettings, methods: Sequence[MethodUnderTest]
) -> Costs:
    """Return the latency of `generate`, measured on the first question; one measurement for all seeds of a method."""
    config = context.config
    evaluator = GenerateEvaluator(context.adapter.model, context.processor, task.groups, settings)
    first = {method.cost: method.method for method in reversed(methods)}
    steps = (config.repeats + 1) * len(first) * len(config.keeps)
    return _stored(
        context, steps, lambda tick: generate_latency(evaluator, first, config.keeps, repeats=config.repeats, tick=tick)
    )


def _stored(context: RunContext, steps: int, measure: Callable[[Callable[[], object]], Costs]) -> Costs:
    """Measure in the run's first process alone, and store the columns."""
    with context.bars.bar("timing", steps) as tick:

        def measured() -> list[list[Any]]:
            return [[method, keep, columns.to_json()] for (method, keep), columns in measure(tick).items()]

        return {
            (method, keep): CostColumns.from_json(columns, "costs")
            for method, keep, columns in context.cache.get("costs", measured)
        }
