"""What the CPU kernels of the selective scan share: the split of the work, and staging of a chunk's inputs into tiles.

A task owns a block of 64 channels of one row and one group. It walks over chunks of 64 steps in scan order. A chunk
first becomes a list of times: reversal turns it round and masked steps are left out, so nothing of theirs is ever
read. What belongs to a chunk is kept in tiles: [step][lane] for a vector of channels, [step][n] for B and C,
[vector][n][lane] for states and A; every row of a vector is 64 bytes. Tails are zeros: zero channels and zero states
change no sum.
"""

from __future__ import annotations

from salience.ops.simd import (
    compute_size,
    copy_strided,
    inline,
    lanes,
    load_byte,
    load_n,
    load_scalar,
    size,
    splat,
    store,
    store_scalar,
)

BLOCK = 64  # channels of a task
CHUNK = 64  # steps between checkpoints
ROW = 64  # bytes of a vector
TILE = CHUNK * ROW
ABSENT, VALID, RESTART = 0, 1, 2  # what a step is, in scan order
LOG2E = 1.4426950408889634074

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
    """Where step i of the chunk lies."""
    where = times[i] if rows[2] != 0 else i
    return rows[0] + where * rows[1]


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
    """Zeros into so many rows of a vector."""
    zero = splat(ctag, 0.0)
    for i in range(rows):
        store(ctag, address + i * ROW, zero)


@inline
def turn_in(ctag, source, step_d, step_n, width, N, NP, factor, out):
    """(channel, n) from anywhere -> [vector][n][lane], times `factor`, zeros elsewhere."""
    clear(ctag, out, (width + lanes(ctag) - 1) // lanes(ctag) * NP)
    for c in range(width):
        target = out + c // lanes(ctag) * NP * ROW + c % lanes(ctag) * compute_size(ctag)
        for n in range(N):
            store_scalar(ctag, target + n * ROW, load_scalar(ctag, source + c * step_d + n * step_n) * factor)


@inline
def turn_out(ctag, source, width, N, NP, out, step_d):
    """[vector][n][lane] -> (channel, n), n contiguous."""
    for c in range(width):
        start = source + c // lanes(ctag) * NP * ROW + c % lanes(ctag) * compute_size(ctag)
        for n in range(N):
            store_scalar(ctag, out + c * step_d + n * compute_size(ctag), load_scalar(ctag, start + n * ROW))


@inline
def scratch_bytes(tiles, NP):
    """Bytes of `tiles` tiles plus everything whose size goes with the number of states, for any element type."""
    return tiles * TILE + 8 * NP * CHUNK * 2 + 4 * BLOCK * NP * 8 + 4 * 1024
