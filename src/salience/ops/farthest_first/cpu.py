"""CPU path of `farthest_first`: a task is one row of the batch, with all its steps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from salience.ops.simd.element import F32
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import load_scalar, store_scalar

PARAMS = np.dtype([(name, "i8") for name in ("distance", "nearest", "chosen", "n", "count")])
INFINITY = np.float32(np.inf)


@inline
def farthest(tag, near, n):
    """Index of the first maximum. Items already chosen are at minus infinity."""
    best, highest = -1, -INFINITY
    for j in range(n):
        value = load_scalar(tag, near + 4 * j)
        if value != -INFINITY and (best < 0 or value > highest):
            best, highest = j, value
    return best


@kernel(PARAMS)
def steps_kernel(tag, params, task):
    p = params[0]
    near, rows = p.nearest + task * p.n * 4, p.distance + task * p.n * p.n * 4
    pick = farthest(tag, near, p.n)
    for j in range(p.n):  # the distance to the nearest neighbour was for the first choice alone
        store_scalar(tag, near + 4 * j, INFINITY)
    for step in range(p.count):
        store_scalar(tag, p.chosen + (task * p.count + step) * 4, pick)
        row = rows + pick * p.n * 4
        for j in range(p.n):
            value = load_scalar(tag, row + 4 * j)
            if value < load_scalar(tag, near + 4 * j):
                store_scalar(tag, near + 4 * j, value)
        store_scalar(tag, near + 4 * pick, -INFINITY)
        pick = farthest(tag, near, p.n)


def steps(distance: Tensor, nearest: Tensor, count: int) -> Tensor:
    """See `farthest_first.steps`; distance contiguous, `nearest` is overwritten."""
    batch, n = nearest.shape
    chosen = torch.empty(batch, count)  # whole numbers in float32, the kernels' only kind: exact up to 2**24
    steps_kernel.job((F32,), batch, (distance.data_ptr(), nearest.data_ptr(), chosen.data_ptr(), n, count)).run()
    return chosen.long()
