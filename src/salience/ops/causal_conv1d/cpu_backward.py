"""Gradients of the fused causal convolution on a CPU.

One walk in scan order: the sums before the activation are computed again, their gradients g fill a second tile, and a
chunk's windows of g, which reach W - 1 rows ahead, give the gradients of the rows W - 1 behind. The gradients
of weight and bias are added up chunk by chunk and kept apart for each task.
"""

from __future__ import annotations

import numpy as np

from salience.ops.causal_conv1d.cpu_rows import (
    BACKWARD,
    BLOCK,
    CHUNK,
    WIDEST,
    ZEROS,
    aligned,
    carry_rows,
    clear_row,
    load4,
    plan_rows,
    read_initial,
    read_row,
    read_rows,
    read_weights,
    sigmoid,
    window_sum,
    write_row,
)
from salience.ops.simd import compute_size, fma, inline, kernel, lanes, load, size, splat, store, store_n


@inline
def through_activation(ctag, p, tile, weights, count, g):
    """One vector of channels: gradients of y in the rows `g` -> gradients of the activation's input."""
    row, width = BLOCK * compute_size(ctag), p.W
    four, bias, one = load4(ctag, weights), load(ctag, weights + width * row), splat(ctag, 1.0)
    for r in range(count):
        value = window_sum(ctag, width, four, weights, tile + r * row, bias)
        s = sigmoid(ctag, value)
        store(ctag, g + r * row, load(ctag, g + r * row) * (s * fma(value, one - s, one)))


@inline
def add_to_weights(ctag, width, tile, count, g, dweight):
    """One vector of channels: dweight[k] += sum of g x_{t - W + 1 + k}, and in row W dbias += sum of g.

    Four taps at a time; those from W on are summed too, from rows that mean nothing, and thrown away.
    """
    row = BLOCK * compute_size(ctag)
    total = splat(ctag, 0.0)
    for r in range(count):
        total += load(ctag, g + r * row)
    store(ctag, dweight + width * row, load(ctag, dweight + width * row) + total)
    for k in range(0, width, 4):
        d0 = splat(ctag, 0.0)
        d1, d2, d3 = d0, d0, d0
        for r in range(count):
            value, x = load(ctag, g + r * row), tile + (r + k) * row
            d0 = fma(value, load(ctag, x), d0)
            d1 = fma(value, load(ctag, x + row), d1)
            d2 = fma(value, load(ctag, x + 2 * row), d2)
            d3 = fma(value, load(ctag, x + 3 * row), d3)
        to = dweight + k * row
        store(ctag, to, load(ctag, to) + d0)
        if k + 1 < width:
            store(ctag, to + row, load(ctag, to + row) + d1)
        if k + 2 < width:
            store(ctag, to + 2 * row, load(ctag, to + 2 * row) + d2)
        if k + 3 < width:
            store(ctag, to + 3 * row, load(ctag, to + 3 * row) + d3)


@inline
def spread(tag, ctag, p, g, weights, more, more_step, times, count, n, dx, dinitial):
    """One vector of channels: windows of g, and the rows `more` -> gradients of the inputs listed in `times`."""
    row, width, step = BLOCK * compute_size(ctag), p.W, p.D * size(tag)
    four = load4(ctag, weights)
    for r in range(count):
        t = times[r]
        if t != ZEROS:
            value = window_sum(ctag, width, four, weights, g + r * row, load(ctag, more + r * more_step))
            store_n(tag, dx + t * step if t >= 0 else dinitial + (-2 - t) * step, value, n)


@inline
def walk(tag, ctag, p, b, first, width, times, tile, g, weights, turned, dweight, more, raw, zero):
    """One row of the batch."""
    s, row, before = size(tag), BLOCK * compute_size(ctag), p.W - 1
    read_initial(tag, ctag, p, b, first, width, raw, tile)
    for m in range(before):
        times[m] = -2 - m
        clear_row(ctag, g + m * row)
        clear_row(ctag, more + m * row)
        if p.dstate != 0:
            source = p.dstate + ((b * before + m) * p.D + first) * s
            read_row(tag, ctag, source, s, width, raw, more + m * row)

    x, dx = p.x + b * p.x_b + first * p.x_d, p.dx + (b * p.L * p.D + first) * s
    dy, dinitial = p.dy + b * p.dy_b + first * p.dy_d, p.dinitial + (b * before * p.D + first) * s
    step, zeros, extra, extra_step, ahead = 0, 0, zero, 0, g + before * row
    while extra_step == 0:
        count, step, zeros = plan_rows(p, b, step, zeros, times, before)
        if count > 0:
            read_rows(tag, ctag, x, p.x_l, p.x_d, width, times, before, count, raw, tile + before * row)
            read_rows(tag, ctag, dy, p.dy_l, p.dy_d, width, times, before, count, raw, ahead)
        else:  # nothing comes after the last W - 1 rows but the state's gradient
            extra, extra_step = more, row
            for m in range(before):
                clear_row(ctag, ahead + m * row)
        for c in range(0, width, lanes(tag)):
            v = c * compute_size(ctag)
            if p.silu != 0:
                through_activation(ctag, p, tile + v, weights + v, count, ahead + v)
            add_to_weights(ctag, p.W, tile + v, count, ahead + v, dweight + v)
            spread(tag, ctag, p, g + v, turned + v, extra + v, extra_step, times, count if count > 0 else before,
                   width - c, dx + c * s, dinitial + c * s)  # fmt: skip
        carry_rows(ctag, tile, count, before)
        carry_rows(ctag, g, count, before)
        for m in range(before):
            times[m] = times[count + m]


@kernel(BACKWARD)
def backward_kernel(tag, ctag, params, task):
    """One block of channels of some rows of the batch, all steps in scan order."""
    p = params[0]
    part, first = task // p.blocks, task % p.blocks * BLOCK
    width = min(BLOCK, p.D - first)
    cs = compute_size(ctag)
    row = BLOCK * cs

    times = np.empty(CHUNK + WIDEST, np.int64)
    scratch = np.empty((2 * CHUNK + 8 * WIDEST) * row + 64, np.uint8)
    tile = aligned(scratch.ctypes.data)  # x, W - 1 rows of the past first
    g = tile + (CHUNK + WIDEST) * row  # gradients before the activation, of the same rows
    weights = g + (CHUNK + WIDEST) * row
    turned = weights + (WIDEST + 1) * row  # the weights, last tap first
    dweight = turned + WIDEST * row
    more = dweight + (WIDEST + 1) * row  # the state's gradient
    raw = more + WIDEST * row
    zero = raw + row

    read_weights(ctag, p, first, width, weights)
    for k in range(p.W):
        read_row(ctag, ctag, weights + (p.W - 1 - k) * row, cs, BLOCK, raw, turned + k * row)
    for k in range(p.W + 1):
        clear_row(ctag, dweight + k * row)
    clear_row(ctag, zero)
    for b in range(part * p.rows, min((part + 1) * p.rows, p.batch)):
        walk(tag, ctag, p, b, first, width, times, tile, g, weights, turned, dweight, more, raw, zero)
    for k in range(p.W + 1):
        write_row(ctag, ctag, dweight + k * row, width, p.dweight + ((part * (p.W + 1) + k) * p.D + first) * cs)
    scratch[0] = 0  # keeps it alive until here
