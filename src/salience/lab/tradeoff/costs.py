"""Cost columns of a trade-off: by stage where pictures are encoded, else the latency of `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from salience.lab.evaluate.encoded_pictures import adapter_dtype
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.ranking import RankedPictures, works_inside
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.generate_latency import generate_latency
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.lab.tradeoff.stage_costs import CostColumns, Costs, measure_costs, rounds
from salience.lab.tradeoff.stage_pipeline import TimedPrompt


def costs(
    context: RunContext, generate: GenerateEvaluator, test: RankedPictures | None, methods: Sequence[MethodUnderTest]
) -> Costs:
    """Measure the first question in the run's first process alone, once for all methods of the same cost.

    Args:    generate: asks the questions in any case   test: the encoded pictures, whose stages can be measured
    """
    keeps, repeats = context.config.keeps, context.config.repeats
    by_cost = {method.cost: method.method.to(context.adapter.device) for method in methods}
    inside = {name: method for name, method in by_cost.items() if works_inside(type(method))}
    before = {name: method for name, method in by_cost.items() if name not in inside}
    measure: Callable[..., Costs] = partial(generate_latency, generate, by_cost, keeps, repeats=repeats)
    steps = (repeats + 1) * len(by_cost) * len(keeps)
    if test is not None:
        image, dtype = test.pictures.samples[0][0].image, adapter_dtype(context.adapter)
        pixels = context.processor.image_processor([image], return_tensors="pt")["pixel_values"]
        case = TimedPrompt(pixels=pixels.to(context.adapter.device, dtype), prompt=test.pictures.prompts[0][0])
        measure = partial(measure_costs, context.adapter, case, before, inside, keeps, repeats=repeats)
        steps = rounds(len(before), len(inside), len(keeps), repeats)
    with context.bars.bar("timing", steps) as tick:

        def measured() -> list[list[Any]]:
            return [[name, keep, columns.to_json()] for (name, keep), columns in measure(tick=tick).items()]

        stored = context.cache.get("costs", measured)
    return {(name, keep): CostColumns.from_json(columns, "costs") for name, keep, columns in stored}
