"""Other work on the machine during a measurement: load averages, and the spread of a fixed job's times.

Times need this context: on a busy machine the same call can take twice as long, and interleaved methods differ by
which of them was disturbed.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from salience.core.environment import busy_because

#: The fixed job: `_PRODUCTS` products of square matrices of this side, some milliseconds on one core.
_SIDE, _PRODUCTS = 256, 12
_REPEATS, _WARM_UP = 25, 3


class Machine:
    """Observation of a machine, from construction on: call `sample` any number of times, and `observed` at the end."""

    def __init__(self) -> None:
        self.load_at_start = load_average()
        self.milliseconds: list[float] = []
        self.sample()

    def sample(self) -> None:
        """Time the fixed job again: a quarter of a second."""
        self.milliseconds += floor_times()

    def observed(self) -> dict[str, Any]:
        """Return the machine's part of a document's environment.

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
    """Mean number of runnable processes over the last minute; None where the system does not count them."""
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
