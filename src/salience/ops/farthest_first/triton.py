"""Triton path of `farthest_first`. Experimental: run by Triton's interpreter, but no run on a GPU is recorded."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from salience.ops.kernel_arguments import current_device

MOST = 16384  # a row's distances that fit into the registers of a program


@triton.jit(do_not_specialize=("n", "count"))
def steps_kernel(distance, nearest, chosen, n, count, BN: tl.constexpr):
    """One row of the batch, in the registers of a program for all its steps."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BN)
    on = j < n
    first = tl.load(nearest + row * n + j, mask=on, other=float("-inf"))
    pick = tl.argmax(first, axis=0)  # ties go to the earlier
    near = tl.where(on, float("inf"), float("-inf"))
    for step in range(count):
        tl.store(chosen + row * count + step, pick.to(tl.int64))
        far = tl.load(distance + (row * n + pick) * n + j, mask=on, other=float("-inf"))
        near = tl.where(j == pick, float("-inf"), tl.minimum(near, far))
        pick = tl.argmax(near, axis=0)


def steps(distance: Tensor, nearest: Tensor, count: int) -> Tensor:
    """See `farthest_first.steps`; distance contiguous, n at most `MOST`."""
    batch, n = nearest.shape
    chosen = torch.empty(batch, count, dtype=torch.int64, device=distance.device)
    block = 1 << max(0, n - 1).bit_length()
    with current_device(distance):
        steps_kernel[(batch,)](distance, nearest.contiguous(), chosen, n, count, BN=block, num_warps=8)
    return chosen
