"""Counter-based random numbers: draw j of example i is a function of (seed, stream, i, j) alone.

So example 7 is the same in every batch, order and process, and a resumed run sees the same examples. The function is
SplitMix64's finaliser (Steele, Lea and Flood, 2014) over a counter: integer arithmetic, equal on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio
_OTHER_STEP = np.uint64(0xD1342543DE82EF95)  # any other odd number with its bits well spread


def uniform(seed: int, stream: int, index: Indices, count: int) -> NDArray[np.float64]:
    """Draw from [0, 1) for examples `index` (b,): (b, count) float64. stream: separates the uses of one seed"""
    with np.errstate(over="ignore"):  # overflow at 2**64 is intended
        start = _mixed(_mixed(np.uint64(seed % 2**64) + _STEP) + np.uint64(stream % 2**64) * _OTHER_STEP)
        rows = _mixed(start + (index.astype(np.uint64) + np.uint64(1)) * _STEP)
        columns = np.arange(1, count + 1, dtype=np.uint64) * _OTHER_STEP
        bits = _mixed(rows[:, None] + columns)
    found: NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def integers(seed: int, stream: int, index: Indices, count: int, below: int) -> Indices:
    """Draw whole numbers 0..below-1, all equally likely: (b, count) int64."""
    return (uniform(seed, stream, index, count) * below).astype(np.int64)


def places(seed: int, stream: int, index: Indices, count: int, among: int) -> Indices:
    """Draw `count` different places of 0..among-1, every set equally likely, rising: (b, count) int64."""
    chosen = np.argpartition(uniform(seed, stream, index, among), count - 1, axis=1)[:, :count]
    return np.sort(chosen, axis=1).astype(np.int64)


def order_of(seed: int, number: int, size: int) -> Indices:
    """Return the seed's permutation `number` of 0..size-1: (size,) int64."""
    keys = uniform(seed, -1, np.asarray([number], dtype=np.int64), size)[0]
    return np.argsort(keys, kind="stable").astype(np.int64)


def _mixed(x: Any) -> Any:
    """SplitMix64's finaliser on uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
