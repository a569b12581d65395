"""Shared parts of the selective scan's CPU kernels: the split of the work, and tiles of a chunk's inputs.

A task owns a block of 64 (AVX-512) or 128 channels of one row and one group. It walks over chunks of 64 steps in scan
order. A chunk first becomes a list of times: reversed if the scan is, without the masked steps, which are never
read. The data of a chunk is kept in tiles: [step][lane] for a vector of channels, [step][n] for B
and C, [vector][n][lane] for states and A. Tails are zeros: zero channels and zero states change no sum. A vector is one
register, `simd.native`: 64 bytes with AVX-512; where there are 16 registers of 32 bytes, four states of two registers
each would leave none for the constants of exp2.
"""

from __future__ import annotations

import numpy as np

from salience.ops.segment_codes import ABSENT, RESTART, VALID
from salience.ops.simd import (
    F32,
    compute_size,
    copy_strided,
    exp2,
    exp2_range,
    exp2_within,
    horizontal_maximum,
    inline,
    lanes,
    load,
    load_byte,
    load_n,
    load_scalar,
    magnitude,
    maximum,
    native,
    size,
    splat,
    store,
    store_scalar,
    vector_size,
)

BLOCK = 64 if native(F32) is F32 else 128  # channels of a task
CHUNK = 64  # steps between checkpoints

TENSORS = [(name + part, "i8") for name in ("u", "dt", "z") for part in ("", "_b", "_l", "_d")]
TENSORS += [(name + part, "i8") for name in ("B", "C") for part in ("", "_b", "_l", "_g", "_n")]
SIZES = [(name, "i8") for name in ("codes", "bias", "skip", "A", "A_d", "A_n", "batch", "L", "D", "N", "NP", "G")]
SIZES += [(name, "i8") for name in ("channels", "blocks", "chunks", "softplus", "reverse")]
COMMON = TENSORS + SIZES


@inline
def aligned(address):
    """The next multiple of 64 bytes."""
    return (address + 63) // 64 * 64


@inline
def plan_chunk(p, b, chunk, times, restarts):
    """Fills `times` with the chunk's valid steps, `restarts` with the places in it before which the state is 0.

    Returns how many there are of both.
    """
    first = chunk * CHUNK
    last = min(first + CHUNK, p.L)
    count, n_restarts = 0, 0
    for s in range(first, last):
        code = VALID
        if p.codes != 0:
            code = load_byte(p.codes + b * p.L + s)
        if code != ABSENT:
            if code == RESTART:
                restarts[n_restarts] = count
                n_restarts += 1
            times[count] = p.L - 1 - s if p.reverse != 0 else s
            count += 1
    return count, n_restarts


@inline
def stage_rows(tag, base, step, stride, n, times, count, raw):
    """Makes a vector of `n` channels readable row by row: (address, step, by_time) for `row_address`.

    Unit stride: where it lies. Any other: a copy of the chunk's rows in `raw`, one strided gather for each step.
    """
    width = lanes(tag) * size(tag)
    if stride == size(tag):
        return base, step, 1
    for i in range(count):
        copy_strided(tag, base + times[i] * step, stride, raw + i * width, size(tag), n)
    return raw, width, 0


@inline
def row_address(rows, times, i):
    """Address of step i of the chunk."""
    where = times[np.uint64(i)] if rows[2] != 0 else i
    return rows[0] + where * rows[1]


@inline
def line_vectors(tag, ctag):
    """Number of vectors of channels in a cache line."""
    return max(1, 64 // (lanes(ctag) * size(tag)))


@inline
def next_line(tag, ctag, p, rows, v, vectors, way):
    """(address, step), by time, of the cache line to prefetch: the one behind vector `v`, whose address is rows[0].

    Behind the chunk's last line it is the first line of the next chunk in the scan's order (`way` 1) or of the one
    before (-1). The hardware does not prefetch such strides, mostly a page for each row. Prefetching a chunk ahead is
    too early: these strides use few sets of a cache, and the lines are evicted before they are used.
    """
    per, width = line_vectors(tag, ctag), lanes(ctag) * size(tag)
    beyond_ = v // per * per + per
    if beyond_ < vectors:
        return rows[0] + (beyond_ - v) * width, rows[1]
    return rows[0] - v * width + way * CHUNK * (-rows[1] if p.reverse != 0 else rows[1]), rows[1]


@inline
def stage_matrix(tag, ctag, base, step, stride, N, NP, times, count, out):
    """B or C of a chunk -> out [step][NP] in the compute type, zeros behind N."""
    width = compute_size(ctag)
    for i in range(count):
        source, target = base + times[i] * step, out + i * NP * width
        if stride == size(tag):
            # In ascending order: what a vector writes behind its row is overwritten by the next (or is padding).
            for n in range(0, NP, lanes(tag)):
                store(ctag, target + n * width, load_n(tag, source + n * stride, N - n))
        else:
            for n in range(NP):
                store_scalar(ctag, target + n * width, 0.0)
            for n in range(N):
                store_scalar(ctag, target + n * width, load_scalar(tag, source + n * stride))


@inline
def clear(ctag, address, rows):
    """Fill `rows` rows of a vector with zeros."""
    zero = splat(ctag, 0.0)
    for i in range(rows):
        store(ctag, address + i * vector_size(ctag), zero)


@inline
def turn_in(ctag, source, step_d, step_n, width, N, NP, factor, out):
    """(channel, n) with any strides -> [vector][n][lane], times `factor`, zeros elsewhere."""
    clear(ctag, out, (width + lanes(ctag) - 1) // lanes(ctag) * NP)
    for c in range(width):
        target = out + c // lanes(ctag) * NP * vector_size(ctag) + c % lanes(ctag) * compute_size(ctag)
        for n in range(N):
            store_scalar(
                ctag, target + n * vector_size(ctag), load_scalar(ctag, source + c * step_d + n * step_n) * factor
            )


@inline
def turn_out(ctag, source, width, N, NP, out, step_d):
    """[vector][n][lane] -> (channel, n), n contiguous."""
    for c in range(width):
        start = source + c // lanes(ctag) * NP * vector_size(ctag) + c % lanes(ctag) * compute_size(ctag)
        for n in range(N):
            store_scalar(
                ctag, out + c * step_d + n * compute_size(ctag), load_scalar(ctag, start + n * vector_size(ctag))
            )


@inline
def scratch_bytes(ctag, rows, NP):
    """Bytes of `rows` rows of a vector and of the buffers with all states: B, C, and four of A's size."""
    return rows * vector_size(ctag) + (2 * CHUNK + 4 * BLOCK) * NP * compute_size(ctag) + 4 * 1024


@inline
def largest_magnitude(ctag, rows, n):
    """Largest magnitude in each lane of n rows of a vector."""
    found = splat(ctag, 0.0)
    for i in range(n):
        found = maximum(found, magnitude(load(ctag, rows + i * vector_size(ctag))))
    return found


@inline
def above_zero(ctag, rows, n):
    """Whether n rows of a vector hold a positive number."""
    found = splat(ctag, 0.0)
    for i in range(n):
        found = maximum(found, load(ctag, rows + i * vector_size(ctag)))
    return horizontal_maximum(found) > 0


@inline
def below_zero(ctag, rows, n):
    """Whether n rows of a vector hold a negative number."""
    zero = splat(ctag, 0.0)
    found = zero
    for i in range(n):
        found = maximum(found, zero - load(ctag, rows + i * vector_size(ctag)))
    return horizontal_maximum(found) > 0


@inline
def beyond(ctag, steps, count, a):
    """Whether some dt A of the chunk may be out of `exp2_within`'s range; `a`: the largest |A| of each lane, in base 2.

    Where dt is NaN either answer is right.
    """
    if exp2_range(ctag) == np.inf:
        return False
    return horizontal_maximum(largest_magnitude(ctag, steps, count) * a) > exp2_range(ctag)


@inline
def decay(x, far):
    """2^x; `far`, a constant: whether x may be out of `exp2_within`'s range."""
    return exp2(x) if far else exp2_within(x)
