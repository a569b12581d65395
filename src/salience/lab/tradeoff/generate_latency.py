"""End-to-end `generate` latency for each method and ratio, for any model: to the first token, and for each next one.

Ratios and methods are measured interleaved, after a warm-up; times are medians. `salience profile` tells how the time
divides among the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.tradeoff.stage_costs import CostColumns, Costs
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget

#: Tokens after the first one, whose mean is the time of a further token.
STEPS = 8


def generate_latency(
    evaluator: GenerateEvaluator,
    methods: Mapping[str, Method],
    keeps: Sequence[float],
    *,
    repeats: int,
    tick: Callable[[], object] | None = None,
) -> Costs:
    """Return (method, keep) -> first_token_ms and decode_ms_per_token, of the first picture's first question."""
    sample, model = evaluator.groups[0][0], evaluator.model
    inputs = evaluator.inputs(sample.image, [sample.question])

    def generate(tokens: int) -> None:
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def case(method: Method | None, keep: float) -> Callable[[Stopwatch], None]:
        def run(watch: Stopwatch) -> None:
            with evaluator.pruned(method, Budget(keep=keep), 0):
                watch.start()
                generate(1)
                watch.lap("first")
                generate(1 + STEPS)
                watch.lap("all")

        return run

    cases = {
        (name, keep): case(method if keep < 1 else None, keep) for name, method in methods.items() for keep in keeps
    }
    with torch.inference_mode():
        found = measure(cases, repeats=repeats, warmup=1, device=model.device, tick=tick)
    return {
        key: CostColumns(first_token_ms=times["first"], decode_ms_per_token=(times["all"] - times["first"]) / STEPS)
        for key, times in found.items()
    }
