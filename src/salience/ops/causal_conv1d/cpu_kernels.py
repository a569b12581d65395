"""The fused causal convolution with its activation on a CPU, forward and backward.

A task owns a block of channels of one row of the batch (of several, where rows are short) and walks over its steps in
the order of the scan, a chunk at a time. A chunk becomes a list of rows in a tile [row][channel] of the compute type,
behind the W - 1 rows before them. A masked step has no row, and a new sequence begins with W - 1 rows of zeros:
windows need no masks, sequences, direction or strides.

The backward pass walks in scan order once: the sums before the activation are computed again, their gradients g fill a
second tile, and a chunk's windows of g, which reach W - 1 rows ahead, give the gradients of the rows W - 1 behind. The
gradients of weight and bias are added up chunk by chunk and kept apart for each task.
"""

from __future__ import annotations

import numpy as np

from salience.ops.constants import LOG2E
from salience.ops.segment_codes import ABSENT, RESTART, VALID
from salience.ops.simd.arithmetic import exp2, fma, maximum, silu_for_halves, splat
from salience.ops.simd.inlined import aligned
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import copy_strided, load, load_byte, load_n, store, store_n
from salience.ops.simd.registers import compute_size, lanes, size

BLOCK = 64  # channels of a task
CHUNK = 32  # rows of a chunk: tiles stay in the first-level cache
WIDEST = 8
ZEROS = -1  # a row that is no step; below it, -2 - m: row m of the initial state

COMMON = [(name, "i8") for name in ("x", "x_b", "x_l", "x_d", "weight", "weight_d", "weight_k", "bias", "initial")]
COMMON += [(name, "i8") for name in ("codes", "L", "D", "W", "blocks", "batch", "rows", "silu", "reverse")]
FORWARD = np.dtype([*COMMON, *((name, "i8") for name in ("y", "last"))])
BACKWARD = np.dtype(
    [*COMMON, *((name, "i8") for name in ("dy", "dy_b", "dy_l", "dy_d", "dstate", "dx", "dweight", "dinitial"))]
)


@inline
def plan_rows(p, b, step, zeros, times, first):
    """Fills times[first:] with the next rows, CHUNK at most, from `step` of the scan on.

    Returns how many, the step to go on from, and how many rows of zeros that one has had before it.
    """
    count = 0
    while count < CHUNK and step < p.L:
        code = VALID
        if p.codes != 0:
            code = load_byte(p.codes + b * p.L + step)
        if code == RESTART and zeros < p.W - 1:
            times[first + count] = ZEROS
            zeros += 1
            count += 1
        else:
            if code != ABSENT:
                times[first + count] = p.L - 1 - step if p.reverse != 0 else step
                count += 1
            zeros = 0
            step += 1
    return count, step, zeros


@inline
def clear_row(ctag, target):
    """Fill a row with zeros."""
    for c in range(0, BLOCK, lanes(ctag)):
        store(ctag, target + c * compute_size(ctag), splat(ctag, 0.0))


@inline
def read_row(tag, ctag, source, stride, width, raw, target):
    """`width` channels from anywhere -> a row of a tile, zeros behind them in the last vector; `raw` is scratch."""
    if stride != size(tag):
        copy_strided(tag, source, stride, raw, size(tag), width)
        source = raw
    c = 0
    while c + lanes(tag) <= width:
        store(ctag, target + c * compute_size(ctag), load(tag, source + c * size(tag)))
        c += lanes(tag)
    if c < width:
        store(ctag, target + c * compute_size(ctag), load_n(tag, source + c * size(tag), width - c))


@inline
def write_row(tag, ctag, source, width, target):
    """A row of a tile -> `width` contiguous channels."""
    for c in range(0, width, lanes(tag)):
        store_n(tag, target + c * size(tag), load(ctag, source + c * compute_size(ctag)), width - c)


@inline
def read_rows(tag, ctag, source, step, stride, width, times, first, count, raw, tile):
    """The steps times[first:] -> rows of a tile."""
    for r in range(count):
        t = times[first + r]
        target = tile + r * BLOCK * compute_size(ctag)
        if t >= 0:
            read_row(tag, ctag, source + t * step, stride, width, raw, target)
        else:
            clear_row(ctag, target)


@inline
def read_initial(tag, ctag, p, b, first, width, raw, tile):
    """The initial state, or zeros -> the W - 1 rows before the first."""
    for m in range(p.W - 1):
        target = tile + m * BLOCK * compute_size(ctag)
        if p.initial != 0:
            source = p.initial + ((b * (p.W - 1) + m) * p.D + first) * size(tag)
            read_row(tag, ctag, source, size(tag), width, raw, target)
        else:
            clear_row(ctag, target)


@inline
def read_weights(ctag, p, first, width, weights):
    """weight and bias of the block -> W + 1 rows of a tile, zeros behind the width and for an absent bias."""
    cs = compute_size(ctag)
    for k in range(p.W + 1):
        clear_row(ctag, weights + k * BLOCK * cs)
    for k in range(p.W):
        source = p.weight + first * p.weight_d + k * p.weight_k
        copy_strided(ctag, source, p.weight_d, weights + k * BLOCK * cs, cs, width)
    if p.bias != 0:
        copy_strided(ctag, p.bias + first * cs, cs, weights + p.W * BLOCK * cs, cs, width)


@inline
def carry_rows(ctag, tile, count, rows):
    """The last `rows` rows of a tile of count + rows become the first ones."""
    row = BLOCK * compute_size(ctag)
    for m in range(rows):
        for c in range(0, row, 64):
            store(ctag, tile + m * row + c, load(ctag, tile + (count + m) * row + c))


@inline
def sigmoid(ctag, x):
    """1 / (1 + exp(-x)): `simd.sigmoid` without its handling of x below -87, where 0 is accurate enough here."""
    one = splat(ctag, 1.0)
    return one / (one + exp2(maximum(splat(ctag, -126.0), x * splat(ctag, -LOG2E))))


@inline
def load4(ctag, weights):
    """The first four rows of a tile, at one vector of it."""
    row = BLOCK * compute_size(ctag)
    return load(ctag, weights), load(ctag, weights + row), load(ctag, weights + 2 * row), load(ctag, weights + 3 * row)


@inline
def window_sum(ctag, width, four, weights, rows, value):
    """value + sum over k of weights[k] rows[k], for one vector; `four` holds the weights where the width is 4."""
    row = BLOCK * compute_size(ctag)
    if width == 4:
        value = fma(four[0], load(ctag, rows), value)
        value = fma(four[1], load(ctag, rows + row), value)
        value = fma(four[2], load(ctag, rows + 2 * row), value)
        value = fma(four[3], load(ctag, rows + 3 * row), value)
    else:
        for k in range(width):
            value = fma(load(ctag, weights + k * row), load(ctag, rows + k * row), value)
    return value


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
