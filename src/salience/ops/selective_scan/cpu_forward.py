"""The fused forward scan on a CPU, with the parts that it shares with the backward scan.

A task owns a block of 64 (AVX-512) or 128 channels of one row and one group. It walks over chunks of 64 steps in scan
order. A chunk first becomes a list of times: reversed if the scan is, without the masked steps, which are never
read. The data of a chunk is kept in tiles: [step][lane] for a vector of channels, [step][n] for B
and C, [vector][n][lane] for states and A. Tails are zeros: zero channels and zero states change no sum. A vector is one
register, `simd.native`: 64 bytes with AVX-512; where there are 16 registers of 32 bytes, four states of two registers
each would leave none for the constants of exp2.

For each chunk and vector of channels: dt (softplus) and dt u into tiles, then four states at a time through the chunk
with h and A in registers, adding C h to y's tile, then the gate. About 4 cycles a vector of state updates are
arithmetic (a product and four multiply-adds for exp, three more, on two units).
"""

from __future__ import annotations

import numpy as np

from salience.ops.constants import LOG2E
from salience.ops.segment_codes import ABSENT, RESTART, VALID
from salience.ops.simd.arithmetic import (
    exp2,
    exp2_range,
    exp2_within,
    fma,
    horizontal_maximum,
    magnitude,
    maximum,
    sigmoid,
    silu_for_halves,
    softplus,
    splat,
)
from salience.ops.simd.element import F32
from salience.ops.simd.inlined import aligned, clear
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import (
    copy_strided,
    count_up,
    load,
    load_byte,
    load_n,
    load_scalar,
    load_splat,
    prefetch,
    store,
    store_n,
    store_scalar,
)
from salience.ops.simd.registers import compute_size, lanes, native, size, vector_size

BLOCK = 64 if native(F32) is F32 else 128  # channels of a task
CHUNK = 64  # steps between checkpoints

TENSORS = [(name + part, "i8") for name in ("u", "dt", "z") for part in ("", "_b", "_l", "_d")]
TENSORS += [(name + part, "i8") for name in ("B", "C") for part in ("", "_b", "_l", "_g", "_n")]
SIZES = [(name, "i8") for name in ("codes", "bias", "skip", "A", "A_d", "A_n", "batch", "L", "D", "N", "NP", "G")]
SIZES += [(name, "i8") for name in ("channels", "blocks", "chunks", "softplus", "reverse")]
COMMON = TENSORS + SIZES
FORWARD = np.dtype([*COMMON, *((name, "i8") for name in ("h0", "y", "last", "saved", "positive", "negative"))])


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
def any_of_sign(ctag, rows, n, sign):
    """Whether n rows of a vector hold a number of this sign, 1.0 or -1.0."""
    found = splat(ctag, 0.0)
    for i in range(n):
        found = maximum(found, splat(ctag, sign) * load(ctag, rows + i * vector_size(ctag)))
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


@inline
def enter(tag, ctag, p, u, dt, times, count, n, bias, skip, tiles):
    """A vector of channels of the chunk -> tiles dt, dt u, D u."""
    ROW, TILE = vector_size(ctag), CHUNK * vector_size(ctag)
    for i in range(count):
        x = load_n(tag, row_address(u, times, i), n)
        d = load_n(tag, row_address(dt, times, i), n) + bias
        if p.softplus != 0:
            d = softplus(d)
        store(ctag, tiles + i * ROW, d)
        store(ctag, tiles + TILE + i * ROW, d * x)
        store(ctag, tiles + 2 * TILE + i * ROW, skip * x)


@inline
def advance(ctag, tiles, b, c, row, a, h, count, restarts, n_restarts, far, times, ahead):
    """Four states of a vector of channels through the chunk: h_t = exp(dt A) h + dt u B, y += C h."""
    ROW, TILE = vector_size(ctag), CHUNK * vector_size(ctag)
    a0, a1, a2, a3 = load(ctag, a), load(ctag, a + ROW), load(ctag, a + 2 * ROW), load(ctag, a + 3 * ROW)
    h0, h1, h2, h3 = load(ctag, h), load(ctag, h + ROW), load(ctag, h + 2 * ROW), load(ctag, h + 3 * ROW)
    w, i = compute_size(ctag), 0
    for part in range(n_restarts + 1):
        end = restarts[part] if part < n_restarts else count
        for j in range(i, end):
            prefetch(ahead[0] + times[np.uint64(j)] * ahead[1])
            d, x = load(ctag, tiles + j * ROW), load(ctag, tiles + TILE + j * ROW)
            y = load(ctag, tiles + 2 * TILE + j * ROW)
            bj, cj = b + j * row, c + j * row
            h0 = fma(decay(d * a0, far), h0, x * load_splat(ctag, bj))
            h1 = fma(decay(d * a1, far), h1, x * load_splat(ctag, bj + w))
            h2 = fma(decay(d * a2, far), h2, x * load_splat(ctag, bj + 2 * w))
            h3 = fma(decay(d * a3, far), h3, x * load_splat(ctag, bj + 3 * w))
            y = fma(load_splat(ctag, cj), h0, y)
            y = fma(load_splat(ctag, cj + w), h1, y)
            y = fma(load_splat(ctag, cj + 2 * w), h2, y)
            y = fma(load_splat(ctag, cj + 3 * w), h3, y)
            store(ctag, tiles + 2 * TILE + j * ROW, y)
        if part < n_restarts:
            h0 = splat(ctag, 0.0)
            h1, h2, h3 = h0, h0, h0
        i = end
    store(ctag, h, h0)
    store(ctag, h + ROW, h1)
    store(ctag, h + 2 * ROW, h2)
    store(ctag, h + 3 * ROW, h3)


@inline
def leave(tag, ctag, p, z, times, count, n, tile, y, step):
    """Store y's tile, gated if there is a z. For types of 16 bits the gate is accurate to 7.5e-5."""
    ROW = vector_size(ctag)
    for i in range(count):
        value = load(ctag, tile + i * ROW)
        if p.z != 0:
            gate = load_n(tag, row_address(z, times, i), n)
            if size(tag) == compute_size(ctag):  # noqa: SIM108 -- numba folds it either way
                value = value * (gate * sigmoid(gate))
            else:
                value = value * silu_for_halves(gate)
        store_n(tag, y + times[i] * step, value, n)


@kernel(FORWARD)
def forward_kernel(tag, ctag, params, task):
    """One block of channels of one row, all chunks in scan order."""
    p = params[0]
    block, rest = task % p.blocks, task // p.blocks
    g, b = rest % p.G, rest // p.G
    first = g * p.channels + block * BLOCK
    width = min(BLOCK, p.channels - block * BLOCK)
    s, cs, W, ROW = size(tag), compute_size(ctag), lanes(ctag), vector_size(ctag)
    TILE = CHUNK * ROW
    row, vectors = p.NP * cs, (width + W - 1) // W
    state_bytes = vectors * p.NP * ROW

    times, restarts = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
    scratch = np.empty(scratch_bytes(ctag, 6 * CHUNK, p.NP), np.uint8)
    tiles = aligned(scratch.ctypes.data)
    raw = tiles + 3 * TILE
    bs = raw + 3 * TILE
    cc = bs + CHUNK * row + ROW
    a = aligned(cc + CHUNK * row + ROW)
    h = a + BLOCK // W * p.NP * ROW

    turn_in(ctag, p.A + first * p.A_d, p.A_d, p.A_n, width, p.N, p.NP, LOG2E, a)
    if any_of_sign(ctag, a, vectors * p.NP, 1.0):
        count_up(p.positive)
    if p.h0 != 0:
        turn_in(ctag, p.h0 + (b * p.D + first) * p.N * cs, p.N * cs, cs, width, p.N, p.NP, 1.0, h)
    else:
        clear(ctag, h, vectors * p.NP)
    clear(ctag, raw, 3 * CHUNK)

    for chunk in range(p.chunks):
        if p.saved != 0:
            out = p.saved + (task * p.chunks + chunk) * (BLOCK // W * p.NP * ROW)
            for i in range(0, state_bytes, ROW):
                store(ctag, out + i, load(ctag, h + i))
        count, n_restarts = plan_chunk(p, b, chunk, times, restarts)
        stage_matrix(tag, ctag, p.B + b * p.B_b + g * p.B_g, p.B_l, p.B_n, p.N, p.NP, times, count, bs)
        stage_matrix(tag, ctag, p.C + b * p.C_b + g * p.C_g, p.C_l, p.C_n, p.N, p.NP, times, count, cc)
        for v in range(vectors):
            d = first + v * W
            n = min(W, width - v * W)
            bias, skip = splat(ctag, 0.0), splat(ctag, 0.0)
            if p.bias != 0:
                bias = load_n(ctag, p.bias + d * cs, n)
            if p.skip != 0:
                skip = load_n(ctag, p.skip + d * cs, n)
            u = stage_rows(tag, p.u + b * p.u_b + d * p.u_d, p.u_l, p.u_d, n, times, count, raw)
            dt = stage_rows(tag, p.dt + b * p.dt_b + d * p.dt_d, p.dt_l, p.dt_d, n, times, count, raw + TILE)
            if n == W:  # a constant: no branch at every load
                enter(tag, ctag, p, u, dt, times, count, W, bias, skip, tiles)
            else:
                enter(tag, ctag, p, u, dt, times, count, n, bias, skip, tiles)
            if p.softplus == 0 and any_of_sign(ctag, tiles, count, -1.0):
                count_up(p.negative)
            y = p.y + (b * p.L * p.D + d) * s
            ahead = (
                next_line(tag, ctag, p, u, v, vectors, 1), next_line(tag, ctag, p, dt, v, vectors, 1),
                next_line(tag, ctag, p, (p.z + b * p.z_b + d * p.z_d, p.z_l, 1), v, vectors, 1),
                next_line(tag, ctag, p, (y, p.D * s, 1), v, vectors, 1),
            )  # fmt: skip
            turn = v % line_vectors(tag, ctag) * (p.NP // 4)
            far = beyond(ctag, tiles, count, largest_magnitude(ctag, a + v * p.NP * ROW, p.NP))
            for i in range(0, p.NP, 4):
                vi, bi, ci = (v * p.NP + i) * ROW, bs + i * cs, cc + i * cs
                next_ = ahead[(i // 4 + turn) % 4]
                if far:
                    advance(ctag, tiles, bi, ci, row, a + vi, h + vi, count, restarts, n_restarts, True, times, next_)
                else:
                    advance(ctag, tiles, bi, ci, row, a + vi, h + vi, count, restarts, n_restarts, False, times, next_)
            z = u
            if p.z != 0:
                z = stage_rows(tag, p.z + b * p.z_b + d * p.z_d, p.z_l, p.z_d, n, times, count, raw + 2 * TILE)
            if n == W:
                leave(tag, ctag, p, z, times, count, W, tiles + 2 * TILE, y, p.D * s)
            else:
                leave(tag, ctag, p, z, times, count, n, tiles + 2 * TILE, y, p.D * s)
    turn_out(ctag, h, width, p.N, p.NP, p.last + (b * p.D + first) * p.N * cs, p.N * cs)
    scratch[0] = 0  # keeps it alive until here
