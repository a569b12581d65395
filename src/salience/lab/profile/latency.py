"""Wall-clock times of stages: cases interleaved in one process, after a warm-up, as medians, device synchronised."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

Case = TypeVar("Case", bound=Hashable)


class Stopwatch:
    """Times of consecutive stages: `lap(name)` ends the stage that began at the last lap (or `start`)."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self.milliseconds: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Begin a stage now; time before it is not counted."""
        synchronise(self._device)
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage; times of the same name add up."""
        synchronise(self._device)
        now = time.perf_counter()
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + (now - self._since) * 1e3
        self._since = now


def synchronise(device: torch.device) -> None:
    """Wait for the work that calls have queued on a device; a CPU has none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure(
    cases: Mapping[Case, Callable[[Stopwatch], object]],
    *,
    repeats: int = 7,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    tick: Callable[[], object] | None = None,
) -> dict[Case, dict[str, float]]:
    """Return case -> stage -> median milliseconds over the rounds of `measure_rounds`, which see."""
    seen = measure_rounds(cases, repeats=repeats, warmup=warmup, device=device, tick=tick)
    return {
        case: {stage: statistics.median(lap[stage] for lap in laps) for stage in laps[0]} for case, laps in seen.items()
    }


def measure_rounds(
    cases: Mapping[Case, Callable[[Stopwatch], object]],
    *,
    repeats: int = 7,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    tick: Callable[[], object] | None = None,
) -> dict[Case, list[dict[str, float]]]:
    """Milliseconds of each case's stages, round by round.

    Every round runs each case once, so that a busy second or a slower clock affects all cases. The first `warmup`
    rounds are dropped. `tick` is called after each case of each round (for a progress bar).

    Returns: case -> `repeats` times stage -> milliseconds.
    Raises:  ValueError when repeats < 1 or warmup < 0.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats is {repeats} and warmup {warmup}, but they must be at least 1 and 0")
    seen: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    with _no_garbage_collection():
        for number in range(warmup + repeats):
            for case, call in cases.items():
                watch = Stopwatch(device)
                call(watch)
                if number >= warmup:
                    seen[case].append(watch.milliseconds)
                if tick is not None:
                    tick()
    return seen


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switch garbage collection off: it would lengthen a case by chance."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
