"""What a clock around `generate` says of a method at a ratio, whatever the model: to the first token, and for the next.

The ratios and methods take turns, after a warm-up; medians. How the time divides among the stages, and operations and
bytes: `salience profile`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

import salience
from salience.lab.profile.latency import Stopwatch, measure
from salience.vlm.methods.base import Method

if TYPE_CHECKING:
    from salience.lab.evaluate.generate_evaluator import GenerateEvaluator

#: Tokens behind the first one whose mean time is a further token's.
STEPS = 8


def clock(
    asking: GenerateEvaluator, methods: Mapping[str, Method], keeps: Sequence[float], *, repeats: int,
    tick: Callable[[], object] | None = None,
) -> dict[tuple[str, float], dict[str, float]]:  # fmt: skip
    """(method, keep) -> first_token_ms and decode_ms_per_token, of the first picture's first question."""
    sample = asking.groups[0][0]
    inputs = asking.inputs(sample.image, [sample.question])

    def say(tokens: int) -> None:
        asking.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def laps(watch: Stopwatch) -> None:
        watch.start()
        say(1)
        watch.lap("first")
        say(1 + STEPS)
        watch.lap("all")

    def case(method: Method, keep: float) -> Callable[[Stopwatch], None]:
        def run(watch: Stopwatch) -> None:
            if keep == 1:
                laps(watch)
                return
            with salience.prune(asking.model, method, keep=keep, positions=asking.positions):
                laps(watch)

        return run

    cases = {(name, keep): case(method, keep) for name, method in methods.items() for keep in keeps}
    with torch.inference_mode():
        found = measure(cases, repeats=repeats, warmup=1, device=asking.model.device, tick=tick)
    return {
        key: {"first_token_ms": stages["first"], "decode_ms_per_token": (stages["all"] - stages["first"]) / STEPS}
        for key, stages in found.items()
    }
