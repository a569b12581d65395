"""Shared parts of the causal convolution's CPU kernels: rows, and sums over windows of rows.

A task owns a block of channels of one row of the batch (of several, where rows are short) and walks over its steps in
the order of the scan, a chunk at a time. A chunk becomes a list of rows in a tile [row][channel] of the compute type,
behind the W - 1 rows before them. A masked step has no row, and a new sequence begins with W - 1 rows of zeros:
windows need no masks, sequences, direction or strides.
"""

from __future__ import annotations

import numpy as np

from salience.ops.constants import LOG2E
from salience.ops.segment_codes import ABSENT, RESTART, VALID
from salience.ops.simd import (
    compute_size,
    copy_strided,
    exp2,
    fma,
    inline,
    lanes,
    load,
    load_byte,
    load_n,
    maximum,
    size,
    splat,
    store,
    store_n,
)

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
def aligned(address):
    """The next multiple of 64 bytes."""
    return (address + 63) // 64 * 64


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
