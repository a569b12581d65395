"""Shared parts of the scan's Triton kernels: elementary functions, and the composition of two steps."""

from __future__ import annotations

import triton
import triton.language as tl

#: Steps between two checkpoints of the state, and of a tile of the backward kernel.
TILE = 16


#: Integers that Triton must not specialise on. A row's alignment unknown, loads are of one element a lane, and so a
#: tile's lanes lie along the channels alone: a lane has a channel's whole column. (Strides along channels, `*_d`, are
#: specialised: 1 is the case that coalesces.)
ROWS = (
    *(f"{name}_{axis}" for name in ("dy", "u", "dt", "z") for axis in "bl"),
    *(f"{name}_{axis}" for name in "BC" for axis in "blg"),
    *("length", "width", "N", "channels", "groups", "blocks", "segments", "tiles", "tiles_per_segment"),
)


@triton.jit
def log1p_small(e, TERMS: tl.constexpr):
    """log(1 + e) for e in [0, 1], as 2 artanh(e / (2 + e)): the GPU's log2 is absolute, not relative, around 1."""
    s = e / (2 + e)
    square = s * s
    total = square * 0 + 1.0 / (2 * TERMS - 1)
    for k in tl.static_range(TERMS - 1):
        total = total * square + 1.0 / (2 * (TERMS - k) - 3)
    return 2 * s * total


@triton.jit
def softplus(x, TERMS: tl.constexpr):
    """log(1 + exp(x)) with full relative accuracy."""
    return tl.maximum(x, 0.0) + log1p_small(tl.exp(-tl.abs(x)), TERMS)


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def compose(a1, b1, ax1, bx1, a2, b2, ax2, bx2):
    """The map x -> a x + b of two steps, one after the other; (ax, bx) is the map without the last step.

    A scan of it gives b, the state after each step, and bx, the state before it: no shift between rows of a tile.
    """
    return a2 * a1, a2 * b1 + b2, ax2 * a1, ax2 * b1 + bx2
