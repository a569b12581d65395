"""The fused causal convolution with its activation on a CPU."""

from __future__ import annotations

import numpy as np

from salience.ops.causal_conv1d.cpu_rows import (
    BLOCK,
    CHUNK,
    FORWARD,
    WIDEST,
    aligned,
    carry_rows,
    load4,
    plan_rows,
    read_initial,
    read_rows,
    read_weights,
    sigmoid,
    window_sum,
    write_row,
)
from salience.ops.simd import compute_size, inline, kernel, lanes, load, silu_for_halves, size, store, store_n


@inline
def convolve(tag, ctag, p, tile, weights, times, count, out, n, y, step):
    """One vector of channels of a chunk: rows of the tile -> y. For 16 bits the activation is accurate to 7.5e-5.

    Sums into `out` first, then the activation and the conversion: as one chain of instructions for each row they would
    leave too few rows in flight. bfloat16 takes .84 to .98 of float32's time at 512 steps of 1536 channels on a
    Zen 3, .61 at 8192 steps, where float32 waits for memory.
    """
    row, width, silu = BLOCK * compute_size(ctag), p.W, p.silu
    four, bias = load4(ctag, weights), load(ctag, weights + width * row)
    for r in range(count):
        store(ctag, out + r * row, window_sum(ctag, width, four, weights, tile + r * row, bias))
    for r in range(count):
        if times[r] >= 0:
            value = load(ctag, out + r * row)
            if silu != 0:
                if size(tag) == compute_size(ctag):  # noqa: SIM108 -- numba folds it either way
                    value = value * sigmoid(ctag, value)
                else:
                    value = silu_for_halves(value)
            store_n(tag, y + times[r] * step, value, n)


@kernel(FORWARD)
def forward_kernel(tag, ctag, params, task):
    """One block of channels of some rows of the batch, all steps in scan order."""
    p = params[0]
    part, first = task // p.blocks, task % p.blocks * BLOCK
    width = min(BLOCK, p.D - first)
    s, cs = size(tag), compute_size(ctag)
    row, before = BLOCK * cs, p.W - 1

    times = np.empty(CHUNK, np.int64)
    scratch = np.empty((2 * CHUNK + 3 * WIDEST) * row + 64, np.uint8)
    tile = aligned(scratch.ctypes.data)
    weights = tile + (CHUNK + WIDEST) * row
    out = weights + (WIDEST + 1) * row
    raw = out + CHUNK * row
    read_weights(ctag, p, first, width, weights)

    for b in range(part * p.rows, min((part + 1) * p.rows, p.batch)):
        read_initial(tag, ctag, p, b, first, width, raw, tile)
        x, y = p.x + b * p.x_b + first * p.x_d, p.y + (b * p.L * p.D + first) * s
        step, zeros = 0, 0
        while step < p.L:
            count, step, zeros = plan_rows(p, b, step, zeros, times, 0)
            read_rows(tag, ctag, x, p.x_l, p.x_d, width, times, 0, count, raw, tile + before * row)
            for c in range(0, width, lanes(tag)):
                v = c * cs
                convolve(tag, ctag, p, tile + v, weights + v, times, count, out + v, width - c, y + c * s, p.D * s)
            carry_rows(ctag, tile, count, before)
        for m in range(before):
            write_row(tag, ctag, tile + m * row, width, p.last + ((b * before + m) * p.D + first) * s)
    scratch[0] = 0  # keeps it alive until here
