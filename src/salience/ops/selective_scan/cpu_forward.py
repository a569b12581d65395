"""The fused forward scan on a CPU.

For each chunk and vector of channels: dt (softplus) and dt u into tiles, then four states at a time through the chunk
with h and A in registers, adding C h to y's tile, then the gate. About 4 cycles a vector of state updates are
arithmetic (a product and four multiply-adds for exp, three more, on two units).
"""

from __future__ import annotations

import numpy as np

from salience.ops.constants import LOG2E
from salience.ops.selective_scan.cpu_tiles import (
    BLOCK,
    CHUNK,
    COMMON,
    above_zero,
    aligned,
    below_zero,
    beyond,
    decay,
    largest_magnitude,
    line_vectors,
    next_line,
    plan_chunk,
    row_address,
    scratch_bytes,
    stage_matrix,
    stage_rows,
    turn_in,
    turn_out,
)
from salience.ops.simd import (
    compute_size,
    count_up,
    fma,
    inline,
    kernel,
    lanes,
    load,
    load_n,
    load_splat,
    prefetch,
    sigmoid,
    silu_for_halves,
    size,
    softplus,
    splat,
    store,
    store_n,
    vector_size,
)

FORWARD = np.dtype([*COMMON, *((name, "i8") for name in ("h0", "y", "last", "saved", "positive", "negative"))])


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
    if above_zero(ctag, a, vectors * p.NP):
        count_up(p.positive)
    if p.h0 != 0:
        turn_in(ctag, p.h0 + (b * p.D + first) * p.N * cs, p.N * cs, cs, width, p.N, p.NP, 1.0, h)
    else:
        for i in range(0, state_bytes, ROW):
            store(ctag, h + i, splat(ctag, 0.0))
    for i in range(3 * CHUNK):
        store(ctag, raw + i * ROW, splat(ctag, 0.0))

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
            if p.softplus == 0 and below_zero(ctag, tiles, count):
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
