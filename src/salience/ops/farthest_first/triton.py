"""Triton path of `farthest_first`. Experimental: run by Triton's interpreter, but no run on a GPU is recorded."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from salience.ops.farthest_first import reference
from salience.ops.farthest_first.triton_kernels import steps_kernel

MOST = 16384  # a row's distances that fit into the registers of a program


def steps(distance: Tensor, nearest: Tensor, count: int) -> Tensor:
    """See `reference.steps`, which longer rows than `MOST` are left to; distance contiguous."""
    batch, n = nearest.shape
    if n > MOST:
        return reference.steps(distance, nearest, count)
    chosen = torch.empty(batch, count, dtype=torch.int64, device=distance.device)
    block = 1 << max(0, n - 1).bit_length()
    with torch.cuda.device(distance.device) if distance.is_cuda else contextlib.nullcontext():
        steps_kernel[(batch,)](distance, nearest.contiguous(), chosen, n, count, BN=block, num_warps=8)
    return chosen
