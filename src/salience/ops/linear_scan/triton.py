"""Triton path of the linear scan. No autograd.

One pass each way, bound by memory where rows times channels fill the GPU; long and narrow inputs do not fill it. The
gradient of a factor that is the same at every step is a sum for each row, added up after: the same bits every time.
Offsets are 64 bit.

Experimental: run by Triton's interpreter, but no run on a GPU is recorded.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from salience.ops.kernel_arguments import contiguous, current_device, rows_contiguous
from salience.ops.linear_scan.triton_kernels import backward_kernel, forward_kernel
from salience.ops.segment_codes import step_codes, valid_before

#: Channels of a program, on a GPU and for the interpreter.
BLOCK, INTERPRETED = 32, 4


def forward(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
            reverse: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x (B, L, planes, D) and the last state (B, planes, D). Shapes as `linear_scan_planes`'s, of one dtype."""
    a, b, entry = rows_contiguous(a), rows_contiguous(b), contiguous(initial_state)
    batch, length, planes, width = b.shape
    x, last = b.new_empty(b.shape), b.new_empty(batch, planes, width)
    codes = step_codes(mask, seq_idx, reverse)
    block = BLOCK if b.is_cuda else INTERPRETED
    with current_device(b):
        forward_kernel[-(-width // block), batch](
            a, b, entry, codes, x, last, *_strides(a), *b.stride()[:3], length, width, PLANES=planes,
            VARYING=a.dim() == 4, HAS_ENTRY=entry is not None, HAS_CODES=codes is not None, REVERSE=reverse,
            COMPUTE=_compute(b), BD=block, num_warps=1,
        )  # fmt: skip
    return x, last


def backward(dx: Tensor, dstate: Tensor | None, x: Tensor, a: Tensor, initial_state: Tensor | None,
             mask: Tensor | None, seq_idx: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of a, b and the initial state; x is the output of `forward`."""
    dx, a, entry, dlast = rows_contiguous(dx), rows_contiguous(a), contiguous(initial_state), contiguous(dstate)
    batch, length, planes, width = x.shape
    varying = a.dim() == 4
    db, dinitial = x.new_empty(x.shape), x.new_empty(batch, planes, width)
    da = x.new_empty(x.shape if varying else dinitial.shape)
    codes = step_codes(mask, seq_idx, reverse)
    before = None if codes is None else valid_before(codes > 0)
    block = BLOCK if x.is_cuda else INTERPRETED
    with current_device(x):
        backward_kernel[-(-width // block), batch](
            dx, dlast, x.detach(), a, entry, codes, before, da, db, dinitial,
            *_strides(a), *dx.stride()[:3], length, width, PLANES=planes, VARYING=varying,
            HAS_ENTRY=entry is not None, HAS_CODES=codes is not None, HAS_LAST=dlast is not None, REVERSE=reverse,
            COMPUTE=_compute(x), BD=block, num_warps=1,
        )  # fmt: skip
    return (da if varying else da.sum(0)), db, dinitial


def _strides(a: Tensor) -> tuple[int, ...]:
    """Strides of row, step and plane; 0 for an axis that a does not have."""
    return a.stride()[:3] if a.dim() == 4 else (0, 0, a.stride(0))


def _compute(x: Tensor) -> Any:
    return tl.float64 if x.dtype == torch.float64 else tl.float32
