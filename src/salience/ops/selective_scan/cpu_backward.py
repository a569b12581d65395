"""The fused backward scan on a CPU: chunk by chunk from the last, each from the checkpoint it was entered with.

For each chunk and vector of channels: dt, dt u and the gradient of y before its gate into tiles; then four states at a
time, once forwards (the states entered with and the decays, kept in the cache) and once backwards with g, the gradient
of the state, in registers:

    g += gy C;  dC += lanes(gy h);  dB += lanes(dt u g);  s += g B;  g *= a;  q = g h_before;  ddt += q A;  dA += q dt

Sums over lanes end in partial sums of each block of channels, which the caller adds: the order is always the same.
"""

from __future__ import annotations

import numpy as np

from salience.ops.selective_scan.cpu_tiles import (
    BLOCK,
    CHUNK,
    COMMON,
    LOG2E,
    ROW,
    TILE,
    aligned,
    clear,
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
    exp2,
    fma,
    fold4,
    inline,
    kernel,
    lanes,
    load,
    load_n,
    load_splat,
    sigmoid,
    size,
    softplus,
    splat,
    store,
    store4,
    store_n,
)

GIVEN = ("saved", "dy", "dy_b", "dy_l", "dy_d", "dstate")
MADE = ("du", "ddt", "dz", "dA", "dB", "dC", "dD", "dbias", "dh0")
BACKWARD = np.dtype([*COMMON, *((name, "i8") for name in GIVEN + MADE)])

LN2 = 0.69314718055994530942
# A vector of channels has a tile of each.
STEP, DRIVE, GRADIENT, OUTPUT, SUM, DECAY = 0, TILE, 2 * TILE, 3 * TILE, 4 * TILE, 5 * TILE
TILES = 6


@inline
def enter_backward(tag, ctag, p, u, dt, dy, z, times, count, n, bias, skip, tiles):
    """A vector of channels of the chunk -> tiles dt, dt u, gy, D u, and zeros for the two sums."""
    zero = splat(ctag, 0.0)
    for i in range(count):
        x = load_n(tag, row_address(u, times, i), n)
        d = load_n(tag, row_address(dt, times, i), n) + bias
        if p.softplus != 0:
            d = softplus(d)
        gy = load_n(tag, row_address(dy, times, i), n)
        if p.z != 0:
            gate = load_n(tag, row_address(z, times, i), n)
            gy = gy * (gate * sigmoid(gate))
        row = tiles + i * ROW
        store(ctag, row + STEP, d)
        store(ctag, row + DRIVE, d * x)
        store(ctag, row + GRADIENT, gy)
        store(ctag, row + OUTPUT, skip * x)
        store(ctag, row + SUM, zero)
        store(ctag, row + DECAY, zero)


@inline
def recompute(ctag, tiles, b, c, row, a, h, count, restarts, n_restarts, befores, decays):
    """Four states of a vector through the chunk: what each step was entered with and its decay, [step][4]; y += C h."""
    a0, a1, a2, a3 = load(ctag, a), load(ctag, a + ROW), load(ctag, a + 2 * ROW), load(ctag, a + 3 * ROW)
    h0, h1, h2, h3 = load(ctag, h), load(ctag, h + ROW), load(ctag, h + 2 * ROW), load(ctag, h + 3 * ROW)
    w, i = compute_size(ctag), 0
    for part in range(n_restarts + 1):
        end = restarts[part] if part < n_restarts else count
        for j in range(i, end):
            d, x = load(ctag, tiles + STEP + j * ROW), load(ctag, tiles + DRIVE + j * ROW)
            y = load(ctag, tiles + OUTPUT + j * ROW)
            bj, cj, kept, decayed = b + j * row, c + j * row, befores + 4 * j * ROW, decays + 4 * j * ROW
            store(ctag, kept, h0)
            store(ctag, kept + ROW, h1)
            store(ctag, kept + 2 * ROW, h2)
            store(ctag, kept + 3 * ROW, h3)
            e0, e1, e2, e3 = exp2(d * a0), exp2(d * a1), exp2(d * a2), exp2(d * a3)
            store(ctag, decayed, e0)
            store(ctag, decayed + ROW, e1)
            store(ctag, decayed + 2 * ROW, e2)
            store(ctag, decayed + 3 * ROW, e3)
            h0 = fma(e0, h0, x * load_splat(ctag, bj))
            h1 = fma(e1, h1, x * load_splat(ctag, bj + w))
            h2 = fma(e2, h2, x * load_splat(ctag, bj + 2 * w))
            h3 = fma(e3, h3, x * load_splat(ctag, bj + 3 * w))
            y = fma(load_splat(ctag, cj), h0, y)
            y = fma(load_splat(ctag, cj + w), h1, y)
            y = fma(load_splat(ctag, cj + 2 * w), h2, y)
            y = fma(load_splat(ctag, cj + 3 * w), h3, y)
            store(ctag, tiles + OUTPUT + j * ROW, y)
        if part < n_restarts:
            h0 = splat(ctag, 0.0)
            h1, h2, h3 = h0, h0, h0
        i = end


@inline
def retreat(ctag, tiles, b, c, row, a, g, da, count, restarts, n_restarts, befores, decays, db, dc, sums_row):
    """Four states of a vector back through the chunk; g and dA go on, dB and dC are added to partial sums of lanes."""
    a0, a1, a2, a3 = load(ctag, a), load(ctag, a + ROW), load(ctag, a + 2 * ROW), load(ctag, a + 3 * ROW)
    g0, g1, g2, g3 = load(ctag, g), load(ctag, g + ROW), load(ctag, g + 2 * ROW), load(ctag, g + 3 * ROW)
    r0, r1, r2, r3 = load(ctag, da), load(ctag, da + ROW), load(ctag, da + 2 * ROW), load(ctag, da + 3 * ROW)
    w, end = compute_size(ctag), count
    for part in range(n_restarts, -1, -1):
        first = restarts[part - 1] if part > 0 else 0
        for j in range(end - 1, first - 1, -1):
            d, x = load(ctag, tiles + STEP + j * ROW), load(ctag, tiles + DRIVE + j * ROW)
            gy, s = load(ctag, tiles + GRADIENT + j * ROW), load(ctag, tiles + SUM + j * ROW)
            bj, cj, kept, decayed = b + j * row, c + j * row, befores + 4 * j * ROW, decays + 4 * j * ROW
            b0, b1, b2, b3 = (
                load_splat(ctag, bj), load_splat(ctag, bj + w), load_splat(ctag, bj + 2 * w),
                load_splat(ctag, bj + 3 * w),
            )  # fmt: skip
            e0, e1, e2, e3 = (
                load(ctag, decayed), load(ctag, decayed + ROW), load(ctag, decayed + 2 * ROW),
                load(ctag, decayed + 3 * ROW),
            )  # fmt: skip
            h0, h1, h2, h3 = (
                load(ctag, kept), load(ctag, kept + ROW), load(ctag, kept + 2 * ROW), load(ctag, kept + 3 * ROW),
            )  # fmt: skip
            lanes_c = fold4(
                gy * fma(e0, h0, x * b0), gy * fma(e1, h1, x * b1), gy * fma(e2, h2, x * b2), gy * fma(e3, h3, x * b3)
            )
            store(ctag, dc + j * sums_row, load(ctag, dc + j * sums_row) + lanes_c)
            g0 = fma(gy, load_splat(ctag, cj), g0)
            g1 = fma(gy, load_splat(ctag, cj + w), g1)
            g2 = fma(gy, load_splat(ctag, cj + 2 * w), g2)
            g3 = fma(gy, load_splat(ctag, cj + 3 * w), g3)
            store(ctag, db + j * sums_row, load(ctag, db + j * sums_row) + fold4(x * g0, x * g1, x * g2, x * g3))
            s = fma(g0, b0, fma(g1, b1, fma(g2, b2, fma(g3, b3, s))))
            store(ctag, tiles + SUM + j * ROW, s)
            g0, g1, g2, g3 = g0 * e0, g1 * e1, g2 * e2, g3 * e3
            q0, q1, q2, q3 = g0 * h0, g1 * h1, g2 * h2, g3 * h3
            r0, r1, r2, r3 = fma(q0, d, r0), fma(q1, d, r1), fma(q2, d, r2), fma(q3, d, r3)
            decay = load(ctag, tiles + DECAY + j * ROW)
            store(ctag, tiles + DECAY + j * ROW, fma(q0, a0, fma(q1, a1, fma(q2, a2, fma(q3, a3, decay)))))
        if part > 0:
            g0 = splat(ctag, 0.0)
            g1, g2, g3 = g0, g0, g0
        end = first
    store(ctag, g, g0)
    store(ctag, g + ROW, g1)
    store(ctag, g + 2 * ROW, g2)
    store(ctag, g + 3 * ROW, g3)
    store(ctag, da, r0)
    store(ctag, da + ROW, r1)
    store(ctag, da + 2 * ROW, r2)
    store(ctag, da + 3 * ROW, r3)


@inline
def leave_backward(tag, ctag, p, u, dt, dy, z, times, count, n, bias, skip, tiles, at, step, sums):
    """Tiles -> du, ddt, dz at the vector's place `at` of each row; `sums` (two rows): the shares of dD and dbias."""
    d_skip, d_bias = load(ctag, sums), load(ctag, sums + ROW)
    ln2, one = splat(ctag, LN2), splat(ctag, 1.0)
    for i in range(count):
        row, where = tiles + i * ROW, at + times[i] * step
        x = load_n(tag, row_address(u, times, i), n)
        gy, s = load(ctag, row + GRADIENT), load(ctag, row + SUM)
        store_n(tag, p.du + where, fma(gy, skip, load(ctag, row + STEP) * s), n)
        change = fma(load(ctag, row + DECAY), ln2, x * s)
        if p.softplus != 0:
            change = change * sigmoid(load_n(tag, row_address(dt, times, i), n) + bias)
        store_n(tag, p.ddt + where, change, n)
        d_skip = fma(gy, x, d_skip)
        d_bias = d_bias + change
        if p.z != 0:
            gate = load_n(tag, row_address(z, times, i), n)
            open_ = sigmoid(gate)
            slope = open_ * fma(gate, one - open_, one)
            store_n(tag, p.dz + where, load_n(tag, row_address(dy, times, i), n) * load(ctag, row + OUTPUT) * slope, n)
    store(ctag, sums, d_skip)
    store(ctag, sums + ROW, d_bias)


@kernel(BACKWARD)
def backward_kernel(tag, ctag, params, task):
    """One block of channels of one row, all chunks against the order of the scan."""
    p = params[0]
    block, rest = task % p.blocks, task // p.blocks
    g, b = rest % p.G, rest // p.G
    first = g * p.channels + block * BLOCK
    width = min(BLOCK, p.channels - block * BLOCK)
    s, cs, W = size(tag), compute_size(ctag), lanes(ctag)
    vectors = (width + W - 1) // W
    row, sums_row, state_rows = p.NP * cs, p.NP // 4 * ROW, BLOCK // W * p.NP

    times, restarts = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
    scratch = np.empty(scratch_bytes(TILES + 12, p.NP) + 2 * CHUNK * sums_row, np.uint8)
    tiles = aligned(scratch.ctypes.data)
    raw = tiles + TILES * TILE
    befores = raw + 4 * TILE
    decays = befores + 4 * TILE
    db = decays + 4 * TILE
    dc = db + CHUNK * sums_row
    bs = dc + CHUNK * sums_row
    cc = bs + CHUNK * row + ROW
    a = aligned(cc + CHUNK * row + ROW)
    gs = a + state_rows * ROW
    das = gs + state_rows * ROW
    sums = das + state_rows * ROW

    turn_in(ctag, p.A + first * p.A_d, p.A_d, p.A_n, width, p.N, p.NP, LOG2E, a)
    clear(ctag, gs, state_rows)
    if p.dstate != 0:
        turn_in(ctag, p.dstate + (b * p.D + first) * p.N * cs, p.N * cs, cs, width, p.N, p.NP, 1.0, gs)
    clear(ctag, das, state_rows)
    clear(ctag, sums, 2 * vectors)
    clear(ctag, raw, 4 * CHUNK)

    for chunk in range(p.chunks - 1, -1, -1):
        saved = p.saved + (task * p.chunks + chunk) * state_rows * ROW
        count, n_restarts = plan_chunk(p, b, chunk, times, restarts)
        stage_matrix(tag, ctag, p.B + b * p.B_b + g * p.B_g, p.B_l, p.B_n, p.N, p.NP, times, count, bs)
        stage_matrix(tag, ctag, p.C + b * p.C_b + g * p.C_g, p.C_l, p.C_n, p.N, p.NP, times, count, cc)
        clear(ctag, db, count * (p.NP // 4))
        clear(ctag, dc, count * (p.NP // 4))
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
            dy = stage_rows(tag, p.dy + b * p.dy_b + d * p.dy_d, p.dy_l, p.dy_d, n, times, count, raw + 2 * TILE)
            z = u
            if p.z != 0:
                z = stage_rows(tag, p.z + b * p.z_b + d * p.z_d, p.z_l, p.z_d, n, times, count, raw + 3 * TILE)
            enter_backward(tag, ctag, p, u, dt, dy, z, times, count, n, bias, skip, tiles)
            for i in range(0, p.NP, 4):
                vi, part = (v * p.NP + i) * ROW, i // 4 * ROW
                recompute(ctag, tiles, bs + i * cs, cc + i * cs, row, a + vi, saved + vi, count, restarts, n_restarts,
                          befores, decays)  # fmt: skip
                retreat(ctag, tiles, bs + i * cs, cc + i * cs, row, a + vi, gs + vi, das + vi, count, restarts,
                        n_restarts, befores, decays, db + part, dc + part, sums_row)  # fmt: skip
            at = (b * p.L * p.D + d) * s
            leave_backward(tag, ctag, p, u, dt, dy, z, times, count, n, bias, skip, tiles, at, p.D * s,
                           sums + 2 * v * ROW)  # fmt: skip
        for j in range(count):
            at = (((b * p.G + g) * p.blocks + block) * p.L + times[j]) * p.NP * cs
            for i in range(0, p.NP, 4):
                store4(p.dB + at + i * cs, load(ctag, db + j * sums_row + i // 4 * ROW))
                store4(p.dC + at + i * cs, load(ctag, dc + j * sums_row + i // 4 * ROW))

    turn_out(ctag, das, width, p.N, p.NP, p.dA + (b * p.D + first) * p.N * cs, p.N * cs)
    turn_out(ctag, gs, width, p.N, p.NP, p.dh0 + (b * p.D + first) * p.N * cs, p.N * cs)
    for v in range(vectors):
        at, n = (b * p.D + first + v * W) * cs, min(W, width - v * W)
        store_n(ctag, p.dD + at, load(ctag, sums + 2 * v * ROW), n)
        store_n(ctag, p.dbias + at, load(ctag, sums + (2 * v + 1) * ROW), n)
    scratch[0] = 0  # keeps it alive until here
