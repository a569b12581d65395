"""Whether the machine had something else to do while a study was measured: load averages and a fixed job's spread.

A time is worth something only beside this: on a busy machine the same call takes twice as long, and methods that were
timed in turn differ by whose turn was disturbed.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from salience.core.environment import busy_because

#: The fixed job: so many products of two square matrices of this side, some milliseconds on one core.
_SIDE, _PRODUCTS = 256, 12
_REPEATS, _WARM_UP = 25, 3


class Machine:
    """Watches a machine from its construction on; `sample` as often as one likes, `observed` at the end."""

    def __init__(self) -> None:
        self.load_at_start = load_average()
        self.milliseconds: list[float] = []
        self.sample()

    def sample(self) -> None:
        """Time the fixed job again: a quarter of a second."""
        self.milliseconds += floor_times()

    def observed(self) -> dict[str, Any]:
        """The machine as a document's environment describes it.

        Returns: load_average_start, load_average_end (over one minute; None where the system has none), floor_ms (the
                 fixed job's median), floor_spread (its 90th percentile over its 10th), busy_because (sentence or None)
        """
        self.sample()
        ordered = sorted(self.milliseconds)
        found = {
            "load_average_start": self.load_at_start,
            "load_average_end": load_average(),
            "floor_ms": round(ordered[len(ordered) // 2], 4),
            "floor_spread": round(ordered[int(0.9 * len(ordered))] / ordered[int(0.1 * len(ordered))], 3),
        }
        return {**found, "busy_because": busy_because(found, os.cpu_count() or 1)}


def load_average() -> float | None:
    """Processes that want to run, mean over the last minute; None where the system does not count them."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def floor_times() -> list[float]:
    """Milliseconds of each repetition of the fixed job, on as many threads as torch uses."""
    x = torch.full((_SIDE, _SIDE), 1 / _SIDE)
    found = []
    with torch.inference_mode():
        for number in range(_WARM_UP + _REPEATS):
            since = time.perf_counter()
            for _ in range(_PRODUCTS):
                x = x @ x
            if number >= _WARM_UP:
                found.append((time.perf_counter() - since) * 1e3)
    return found
