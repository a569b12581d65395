"""Triton path of the causal convolution. No autograd.

It is bound by memory: one pass each way, no tuning; neighbours in a tile are read again from cache. The gradients of
weight and bias are partial sums, one for each part of a row, added up after: the same bits every time.
Offsets are 64 bit.

Experimental: compiled for sm_80 and sm_90 and run by Triton's interpreter, but no run on a GPU is recorded.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from salience.ops.causal_conv1d.checks import ConvInputs
from salience.ops.causal_conv1d.triton_kernels import backward_kernel, forward_kernel, step_kernel
from salience.ops.kernel_arguments import compute_dtype, contiguous, current_device, output_like

#: Ranks and channels of a tile, on a GPU and for the interpreter.
TILE, INTERPRETED = (16, 64), (8, 4)
#: Tiles of a program of the backward kernel.
TILES = 8


def _ranks(mask: Tensor | None, seq_idx: Tensor | None, width: int, reverse: bool) -> tuple[Tensor | None, ...]:
    """Positions of the valid steps, by rank. All None: a rank is a position (counted from the end under reverse).

    Returns: (B, L) position of each rank, (B, L) rank where its sequence begins, (B,) number of valid steps
    """
    like = mask if mask is not None else seq_idx
    if like is None:
        return None, None, None
    valid = torch.ones_like(like, dtype=torch.bool) if mask is None else mask
    valid = valid.flip(1) if reverse else valid
    order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)  # the valid ones first
    starts = torch.full_like(order, 1 - width)
    if seq_idx is not None:
        moved = (seq_idx.flip(1) if reverse else seq_idx).gather(1, order)
        changed = pad(moved[:, 1:] != moved[:, :-1], (1, 0))
        starts = torch.where(changed, torch.arange(order.shape[1], device=order.device), starts).cummax(1).values
    places = order.shape[1] - 1 - order if reverse else order
    return places.contiguous(), starts.contiguous(), valid.sum(1)


def forward(given: ConvInputs) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, W - 1, D) in x.dtype. Shapes as `causal_conv1d`'s, any strides."""
    x, weight, bias, initial_state, mask, seq_idx, silu, reverse = given
    batch, length, channels = x.shape
    width = weight.shape[1]
    ranks = _ranks(mask, seq_idx, width, reverse)
    y = output_like(x, mask)
    state = torch.zeros(batch, width - 1, channels, dtype=x.dtype, device=x.device)
    rows, block = TILE if x.is_cuda else INTERPRETED
    grid = (-(-channels // block), -(-(length + width - 1) // rows), batch)
    with current_device(x):
        forward_kernel[grid](
            x, *_small(x, weight, bias, initial_state), *ranks, y, state, *x.stride(), length, channels,
            HAS_BIAS=bias is not None, HAS_INITIAL=initial_state is not None, TABLE=ranks[0] is not None,
            REVERSE=reverse, SILU=silu, COMPUTE=_compute(x), WIDTH=width, ROWS=rows, BD=block,
        )  # fmt: skip
    return y, state


def backward(dy: Tensor, dstate: Tensor | None, given: ConvInputs) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight, bias and initial_state, each in its dtype; None for what is absent."""
    x, weight, bias, initial_state, mask, seq_idx, silu, reverse = given
    batch, length, channels = x.shape
    width = weight.shape[1]
    ranks = _ranks(mask, seq_idx, width, reverse)
    dx = output_like(x, mask)
    dinitial = None if initial_state is None else initial_state.new_empty(initial_state.shape)
    dstate = contiguous(dstate)
    rows, block = TILE if x.is_cuda else INTERPRETED
    parts = -(-(length + width - 1) // (rows * TILES))
    small = _small(x, weight, bias, initial_state)
    partial = small[0].new_empty(batch, parts, width + 1, channels)
    with current_device(x):
        backward_kernel[(-(-channels // block), parts, batch)](
            dy, dstate, x, *small, *ranks, dx, dinitial, partial, *dy.stride(), *x.stride(), length,
            channels, HAS_STATE=dstate is not None, HAS_BIAS=bias is not None,
            HAS_INITIAL=initial_state is not None, TABLE=ranks[0] is not None, REVERSE=reverse, SILU=silu,
            COMPUTE=_compute(x), WIDTH=width, ROWS=rows, TILES=TILES, BD=block,
        )  # fmt: skip
    sums = partial.sum((0, 1))
    dbias = None if bias is None else sums[-1].to(bias.dtype, copy=True)
    return dx, sums[:-1].t().to(weight.dtype).contiguous(), dbias, dinitial


def step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """y (B, D) in x.dtype; `state` is updated in place. Shapes as `causal_conv1d_step`'s, any strides."""
    batch, channels = x.shape
    y = torch.empty(batch, channels, dtype=x.dtype, device=x.device)
    block = 128 if x.is_cuda else 4
    with current_device(x):
        step_kernel[(-(-channels // block), batch)](
            state, x, *_small(x, weight, bias, None)[:2], y, *state.stride(), *x.stride(), channels,
            HAS_BIAS=bias is not None, SILU=silu, COMPUTE=_compute(x), WIDTH=weight.shape[1], BD=block,
        )  # fmt: skip
    return y


def _small(x: Tensor, weight: Tensor, bias: Tensor | None,
           initial: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """weight (W, D) and bias in the compute dtype, the initial state as x; all contiguous."""
    compute = compute_dtype(x.dtype)
    return weight.detach().to(compute).t().contiguous(), contiguous(bias, compute), contiguous(initial, x.dtype)


def _compute(x: Tensor) -> Any:
    return tl.float64 if x.dtype == torch.float64 else tl.float32
