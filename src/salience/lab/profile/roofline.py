"""Limits of a device: operations per second, bytes per second, and the time to launch an operator."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from salience.lab.profile.latency import synchronise

_MATMUL = (128, 4096)  # rows of the square product, smallest and largest; it grows until one takes _MIN_SECONDS
_MIN_SECONDS = 0.02
_COPY = {"cuda": 2**29}  # bytes of a copy, far more than a processor's caches
_CALLS = 200


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """A device's limits.

    flops_per_s: of a large matrix product, 2 a multiply-add.   bytes_per_s: read and written by a large copy.
    launch_s: the least time between one operator's start and the next one's.   name: of the device, for the reader.
    Raises:  ValueError when a limit is not a positive, finite number
    """

    flops_per_s: float
    bytes_per_s: float
    launch_s: float
    name: str = "a device"

    def __post_init__(self) -> None:
        for field in ("flops_per_s", "bytes_per_s", "launch_s"):
            value = getattr(self, field)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{field} must be a positive, finite number, not {value!r}.")

    def seconds(self, flops: int, moved: float) -> float:
        """The least time of one operator of `flops` operations that reads and writes `moved` bytes."""
        return max(flops / self.flops_per_s, moved / self.bytes_per_s, self.launch_s)


@functools.cache
def measure_roof(device: torch.device, dtype: torch.dtype) -> Roofline:
    """The limits of `device` for matrices of `dtype`, measured once in a process, in about a second.

    Each figure is the best of a few tries, to reduce the effect of other work on the machine.
    """
    with torch.no_grad():
        return Roofline(
            flops_per_s=_flops_per_s(device, dtype),
            bytes_per_s=_bytes_per_s(device),
            launch_s=_launch_s(device, dtype),
            name=_name(device),
        )


def _flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    rows, largest = _MATMUL if device.type == "cpu" else (1024, 8192)
    while True:
        a, b = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
        taken = _best(partial(torch.matmul, a, b), device, tries=2)
        if taken >= _MIN_SECONDS or rows >= largest:
            break
        rows *= 2
    return 2 * rows**3 / min(taken, _best(partial(torch.matmul, a, b), device, tries=5))


def _bytes_per_s(device: torch.device) -> float:
    size = _COPY.get(device.type, 2**27)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device, tries=4)


def _launch_s(device: torch.device, dtype: torch.dtype) -> float:
    """Seconds of a module's call on a tiny input: Python, dispatch, and the start of the kernel."""
    layer = nn.Linear(8, 8, device=device, dtype=dtype)
    x = torch.ones(1, 8, device=device, dtype=dtype)

    def calls() -> None:
        for _ in range(_CALLS):
            layer(x)

    return _best(calls, device, tries=3) / _CALLS


def _best(call: Callable[[], object], device: torch.device, *, tries: int) -> float:
    """Least seconds of a call, after one warm-up."""
    times = []
    for _ in range(1 + tries):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    return str(device)
