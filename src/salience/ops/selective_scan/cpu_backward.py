"""The fused backward scan on a CPU: chunk by chunk from the last, each from the checkpoint before it.

For each chunk and vector of channels: dt, dt u and the gradient of y before its gate into tiles; then four states at a
time, once forwards (the states and the decays, kept in the cache) and once backwards with g, the gradient
of the state, in registers:

    g += gy C;  dC += lanes(gy h);  dB += lanes(dt u g);  s += g B;  g *= a;  q = g h_before;  ddt += q A;  dA += q dt

Sums over lanes end in partial sums of each block of channels, which the caller adds: the order is always the same.
"""

from __future__ import annotations

import numpy as np

from salience.ops.constants import LN2, LOG2E
from salience.ops.selective_scan.cpu_forward import (
    BLOCK,
    CHUNK,
    COMMON,
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
from salience.ops.simd.arithmetic import add4, fma, fold4, sigmoid, softplus, splat
from salience.ops.simd.inlined import aligned, clear
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import load, load_n, load_scalar, load_splat, prefetch, store, store_n, store_scalar
from salience.ops.simd.registers import compute_size, lanes, size, vector_size

GIVEN = ("saved", "dy", "dy_b", "dy_l", "dy_d", "dstate")
MADE = ("du", "ddt", "dz", "dA", "partial", "dD", "dbias", "dh0")
BACKWARD = np.dtype([*COMMON, *((name, "i8") for name in GIVEN + MADE)])
TOTAL = np.dtype([(name, "i8") for name in ("partial", "dB", "dC", "batch", "G", "blocks", "L", "N", "NP")])

# A vector of channels has a tile of each.
STEP, DRIVE, GRADIENT, OUTPUT, SUM, DECAY, SLOPE, GATE = 0, 1, 2, 3, 4, 5, 6, 7
TILES = 8


@inline
def tile(ctag, tiles, which):
    """Address of one of these tiles."""
    return tiles + which * CHUNK * vector_size(ctag)


@inline
def enter_backward(tag, ctag, p, u, dt, dy, z, times, count, n, bias, skip, tiles):
    """A vector of channels of the chunk -> tiles dt, dt u, gy, D u, zeros for the two sums, and the factors
    of `leave_backward`: softplus' derivative, and dy times the gate's derivative.
    """
    zero, one, R = splat(ctag, 0.0), splat(ctag, 1.0), vector_size(ctag)
    for i in range(count):
        x = load_n(tag, row_address(u, times, i), n)
        d = load_n(tag, row_address(dt, times, i), n) + bias
        if p.softplus != 0:
            store(ctag, tile(ctag, tiles, SLOPE) + i * R, sigmoid(d))
            d = softplus(d)
        gy = load_n(tag, row_address(dy, times, i), n)
        if p.z != 0:
            gate = load_n(tag, row_address(z, times, i), n)
            open_ = sigmoid(gate)
            store(ctag, tile(ctag, tiles, GATE) + i * R, gy * (open_ * fma(gate, one - open_, one)))
            gy = gy * (gate * open_)
        store(ctag, tile(ctag, tiles, STEP) + i * R, d)
        store(ctag, tile(ctag, tiles, DRIVE) + i * R, d * x)
        store(ctag, tile(ctag, tiles, GRADIENT) + i * R, gy)
        store(ctag, tile(ctag, tiles, OUTPUT) + i * R, skip * x)
        store(ctag, tile(ctag, tiles, SUM) + i * R, zero)
        store(ctag, tile(ctag, tiles, DECAY) + i * R, zero)


@inline
def recompute(ctag, tiles, b, c, row, a, h, count, restarts, n_restarts, states, decays, far, times, ahead):
    """Four states of a vector through the chunk: `states` and `decays`, rows of four; y += C h.

    `states` holds the state before each part of the chunk, then the states after each of its steps.
    """
    R = vector_size(ctag)
    a0, a1, a2, a3 = load(ctag, a), load(ctag, a + R), load(ctag, a + 2 * R), load(ctag, a + 3 * R)
    h0, h1, h2, h3 = load(ctag, h), load(ctag, h + R), load(ctag, h + 2 * R), load(ctag, h + 3 * R)
    ds, xs, ys = tile(ctag, tiles, STEP), tile(ctag, tiles, DRIVE), tile(ctag, tiles, OUTPUT)
    w, i = compute_size(ctag), 0
    for part in range(n_restarts + 1):
        end = restarts[part] if part < n_restarts else count
        entered = states + 4 * (i + part) * R
        store(ctag, entered, h0)
        store(ctag, entered + R, h1)
        store(ctag, entered + 2 * R, h2)
        store(ctag, entered + 3 * R, h3)
        for j in range(i, end):
            prefetch(ahead[0] + times[np.uint64(j)] * ahead[1])
            d, x, y = load(ctag, ds + j * R), load(ctag, xs + j * R), load(ctag, ys + j * R)
            bj, cj, after, decayed = b + j * row, c + j * row, states + 4 * (j + part + 1) * R, decays + 4 * j * R
            e0, e1, e2, e3 = decay(d * a0, far), decay(d * a1, far), decay(d * a2, far), decay(d * a3, far)
            store(ctag, decayed, e0)
            store(ctag, decayed + R, e1)
            store(ctag, decayed + 2 * R, e2)
            store(ctag, decayed + 3 * R, e3)
            h0 = fma(e0, h0, x * load_splat(ctag, bj))
            h1 = fma(e1, h1, x * load_splat(ctag, bj + w))
            h2 = fma(e2, h2, x * load_splat(ctag, bj + 2 * w))
            h3 = fma(e3, h3, x * load_splat(ctag, bj + 3 * w))
            store(ctag, after, h0)
            store(ctag, after + R, h1)
            store(ctag, after + 2 * R, h2)
            store(ctag, after + 3 * R, h3)
            y = fma(load_splat(ctag, cj), h0, y)
            y = fma(load_splat(ctag, cj + w), h1, y)
            y = fma(load_splat(ctag, cj + 2 * w), h2, y)
            y = fma(load_splat(ctag, cj + 3 * w), h3, y)
            store(ctag, ys + j * R, y)
        if part < n_restarts:
            h0 = splat(ctag, 0.0)
            h1, h2, h3 = h0, h0, h0
        i = end


@inline
def retreat(ctag, tiles, b, c, row, a, g, da, count, restarts, n_restarts, states, decays, db, dc, times, ahead):
    """Four states of a vector back through the chunk; g and dA go on, dB and dC are added to, [step][4]."""
    R = vector_size(ctag)
    a0, a1, a2, a3 = load(ctag, a), load(ctag, a + R), load(ctag, a + 2 * R), load(ctag, a + 3 * R)
    g0, g1, g2, g3 = load(ctag, g), load(ctag, g + R), load(ctag, g + 2 * R), load(ctag, g + 3 * R)
    r0, r1, r2, r3 = load(ctag, da), load(ctag, da + R), load(ctag, da + 2 * R), load(ctag, da + 3 * R)
    ds, xs, gys = tile(ctag, tiles, STEP), tile(ctag, tiles, DRIVE), tile(ctag, tiles, GRADIENT)
    sums, decayings = tile(ctag, tiles, SUM), tile(ctag, tiles, DECAY)
    w, end = compute_size(ctag), count
    for part in range(n_restarts, -1, -1):
        first = restarts[part - 1] if part > 0 else 0
        for j in range(end - 1, first - 1, -1):
            prefetch(ahead[0] + times[np.uint64(j)] * ahead[1])
            gy = load(ctag, gys + j * R)
            before, e, bj, cj = states + 4 * (j + part) * R, decays + 4 * j * R, b + j * row, c + j * row
            after = before + 4 * R
            add4(dc + 4 * j * w, fold4(gy * load(ctag, after), gy * load(ctag, after + R),
                                       gy * load(ctag, after + 2 * R), gy * load(ctag, after + 3 * R)))  # fmt: skip
            g0, g1 = fma(gy, load_splat(ctag, cj), g0), fma(gy, load_splat(ctag, cj + w), g1)
            g2, g3 = fma(gy, load_splat(ctag, cj + 2 * w), g2), fma(gy, load_splat(ctag, cj + 3 * w), g3)
            x = load(ctag, xs + j * R)
            add4(db + 4 * j * w, fold4(x * g0, x * g1, x * g2, x * g3))
            s = fma(load_splat(ctag, bj), g0, load(ctag, sums + j * R))
            s = fma(load_splat(ctag, bj + w), g1, s)
            s = fma(load_splat(ctag, bj + 2 * w), g2, s)
            store(ctag, sums + j * R, fma(load_splat(ctag, bj + 3 * w), g3, s))
            g0, g1 = g0 * load(ctag, e), g1 * load(ctag, e + R)
            g2, g3 = g2 * load(ctag, e + 2 * R), g3 * load(ctag, e + 3 * R)
            q0, q1 = g0 * load(ctag, before), g1 * load(ctag, before + R)
            q2, q3 = g2 * load(ctag, before + 2 * R), g3 * load(ctag, before + 3 * R)
            d = load(ctag, ds + j * R)
            r0, r1, r2, r3 = fma(q0, d, r0), fma(q1, d, r1), fma(q2, d, r2), fma(q3, d, r3)
            total = fma(q0, a0, fma(q1, a1, fma(q2, a2, fma(q3, a3, load(ctag, decayings + j * R)))))
            store(ctag, decayings + j * R, total)
        if part > 0:
            g0 = splat(ctag, 0.0)
            g1, g2, g3 = g0, g0, g0
        end = first
    store(ctag, g, g0)
    store(ctag, g + R, g1)
    store(ctag, g + 2 * R, g2)
    store(ctag, g + 3 * R, g3)
    store(ctag, da, r0)
    store(ctag, da + R, r1)
    store(ctag, da + 2 * R, r2)
    store(ctag, da + 3 * R, r3)


@inline
def leave_backward(tag, ctag, p, u, times, count, n, skip, tiles, at, step, sums):
    """Tiles -> du, ddt, dz at the vector's place `at` of each row; `sums` (two rows): the shares of dD and dbias."""
    R = vector_size(ctag)
    d_skip, d_bias = load(ctag, sums), load(ctag, sums + R)
    ln2 = splat(ctag, LN2)
    for i in range(count):
        where = at + times[i] * step
        x = load_n(tag, row_address(u, times, i), n)
        gy, s = load(ctag, tile(ctag, tiles, GRADIENT) + i * R), load(ctag, tile(ctag, tiles, SUM) + i * R)
        store_n(tag, p.du + where, fma(gy, skip, load(ctag, tile(ctag, tiles, STEP) + i * R) * s), n)
        change = fma(load(ctag, tile(ctag, tiles, DECAY) + i * R), ln2, x * s)
        if p.softplus != 0:
            change = change * load(ctag, tile(ctag, tiles, SLOPE) + i * R)
        store_n(tag, p.ddt + where, change, n)
        d_skip = fma(gy, x, d_skip)
        d_bias = d_bias + change
        if p.z != 0:
            y = load(ctag, tile(ctag, tiles, OUTPUT) + i * R)
            store_n(tag, p.dz + where, load(ctag, tile(ctag, tiles, GATE) + i * R) * y, n)
    store(ctag, sums, d_skip)
    store(ctag, sums + R, d_bias)


@kernel(BACKWARD)
def backward_kernel(tag, ctag, params, task):
    """One block of channels of one row, all chunks against the order of the scan."""
    p = params[0]
    block, rest = task % p.blocks, task // p.blocks
    g, b = rest % p.G, rest // p.G
    first = g * p.channels + block * BLOCK
    width = min(BLOCK, p.channels - block * BLOCK)
    s, cs, W, R = size(tag), compute_size(ctag), lanes(ctag), vector_size(ctag)
    vectors = (width + W - 1) // W
    row, state_rows = p.NP * cs, BLOCK // W * p.NP

    times, restarts = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
    scratch = np.empty(scratch_bytes(ctag, (TILES + 16) * CHUNK + 4, p.NP) + 2 * CHUNK * row, np.uint8)
    tiles = aligned(scratch.ctypes.data)
    raw = tile(ctag, tiles, TILES)
    states = tile(ctag, raw, 4)
    decays = tile(ctag, states, 8) + 4 * R  # of a chunk that is all restarts there are two rows a step, and one
    db = tile(ctag, decays, 4)
    dc = db + CHUNK * row
    bs = dc + CHUNK * row
    cc = bs + CHUNK * row + R
    a = aligned(cc + CHUNK * row + R)
    gs = a + state_rows * R
    das = gs + state_rows * R
    sums = das + state_rows * R

    turn_in(ctag, p.A + first * p.A_d, p.A_d, p.A_n, width, p.N, p.NP, LOG2E, a)
    clear(ctag, gs, state_rows)
    if p.dstate != 0:
        turn_in(ctag, p.dstate + (b * p.D + first) * p.N * cs, p.N * cs, cs, width, p.N, p.NP, 1.0, gs)
    clear(ctag, das, state_rows)
    clear(ctag, sums, 2 * vectors)
    clear(ctag, raw, 4 * CHUNK)

    for chunk in range(p.chunks - 1, -1, -1):
        saved = p.saved + (task * p.chunks + chunk) * state_rows * R
        count, n_restarts = plan_chunk(p, b, chunk, times, restarts)
        stage_matrix(tag, ctag, p.B + b * p.B_b + g * p.B_g, p.B_l, p.B_n, p.N, p.NP, times, count, bs)
        stage_matrix(tag, ctag, p.C + b * p.C_b + g * p.C_g, p.C_l, p.C_n, p.N, p.NP, times, count, cc)
        clear(ctag, db, 2 * CHUNK * row // R)
        for v in range(vectors):
            d = first + v * W
            n = min(W, width - v * W)
            bias, skip = splat(ctag, 0.0), splat(ctag, 0.0)
            if p.bias != 0:
                bias = load_n(ctag, p.bias + d * cs, n)
            if p.skip != 0:
                skip = load_n(ctag, p.skip + d * cs, n)
            u = stage_rows(tag, p.u + b * p.u_b + d * p.u_d, p.u_l, p.u_d, n, times, count, raw)
            dt = stage_rows(
                tag, p.dt + b * p.dt_b + d * p.dt_d, p.dt_l, p.dt_d, n, times, count, tile(ctag, raw, 1)
            )  # fmt: skip
            dy = stage_rows(
                tag, p.dy + b * p.dy_b + d * p.dy_d, p.dy_l, p.dy_d, n, times, count, tile(ctag, raw, 2)
            )  # fmt: skip
            z = u
            if p.z != 0:
                z = stage_rows(tag, p.z + b * p.z_b + d * p.z_d, p.z_l, p.z_d, n, times, count, tile(ctag, raw, 3))
            if n == W:  # a constant: no branch at every load
                enter_backward(tag, ctag, p, u, dt, dy, z, times, count, W, bias, skip, tiles)
            else:
                enter_backward(tag, ctag, p, u, dt, dy, z, times, count, n, bias, skip, tiles)
            at = (b * p.L * p.D + d) * s
            out = p.D * s
            flat = (u, dt, dy, (p.z + b * p.z_b + d * p.z_d, p.z_l, 1))
            made = ((p.du + at, out, 1), (p.ddt + at, out, 1), (p.dz + at, out, 1), u)
            turn = v % line_vectors(tag, ctag) * (p.NP // 4)
            far = beyond(ctag, tile(ctag, tiles, STEP), count, largest_magnitude(ctag, a + v * p.NP * R, p.NP))
            for i in range(0, p.NP, 4):
                ahead = next_line(tag, ctag, p, flat[(i // 4 + turn) % 4], v, vectors, -1)
                behind = next_line(tag, ctag, p, made[(i // 4 + turn) % 4], v, vectors, -1)
                vi, part, bi, ci = (v * p.NP + i) * R, i * CHUNK * cs, bs + i * cs, cc + i * cs
                if far:
                    recompute(ctag, tiles, bi, ci, row, a + vi, saved + vi, count, restarts, n_restarts, states,
                              decays, True, times, ahead)  # fmt: skip
                else:
                    recompute(ctag, tiles, bi, ci, row, a + vi, saved + vi, count, restarts, n_restarts, states,
                              decays, False, times, ahead)  # fmt: skip
                retreat(ctag, tiles, bi, ci, row, a + vi, gs + vi, das + vi, count, restarts, n_restarts, states,
                        decays, db + part, dc + part, times, behind)  # fmt: skip
            if n == W:
                leave_backward(tag, ctag, p, u, times, count, W, skip, tiles, at, out, sums + 2 * v * R)
            else:
                leave_backward(tag, ctag, p, u, times, count, n, skip, tiles, at, out, sums + 2 * v * R)
        shares = p.partial + ((b * p.G + g) * p.blocks + block) * p.L * row
        for j in range(count):
            at = shares + times[j] * row
            for i in range(p.NP):
                part = (i // 4 * CHUNK + j) * 4 * cs + i % 4 * cs
                store_scalar(ctag, at + i * cs, load_scalar(ctag, db + part))
                store_scalar(ctag, at + p.batch * p.G * p.blocks * p.L * row + i * cs, load_scalar(ctag, dc + part))

    turn_out(ctag, das, width, p.N, p.NP, p.dA + (b * p.D + first) * p.N * cs, p.N * cs)
    turn_out(ctag, gs, width, p.N, p.NP, p.dh0 + (b * p.D + first) * p.N * cs, p.N * cs)
    for v in range(vectors):
        at, n = (b * p.D + first + v * W) * cs, min(W, width - v * W)
        store_n(ctag, p.dD + at, load(ctag, sums + 2 * v * R), n)
        store_n(ctag, p.dbias + at, load(ctag, sums + (2 * v + 1) * R), n)
    scratch[0] = 0  # keeps it alive until here


@kernel(TOTAL)
def total_kernel(ctag, params, task):
    """dB or dC of one row and group: the blocks' shares, (L, NP) each, added in their order whatever threads did."""
    p = params[0]
    W, cs = lanes(ctag), compute_size(ctag)
    share, row = p.L * p.NP * cs, p.G * p.N * cs
    source, made = p.partial + task * p.blocks * share, task // (p.batch * p.G)
    place = task - made * p.batch * p.G
    target = (p.dB if made == 0 else p.dC) + (place // p.G * p.L * p.G + place % p.G) * p.N * cs
    for t in range(p.L):
        for n in range(0, p.N, W):
            at = source + (t * p.NP + n) * cs
            total = load_n(ctag, at, p.NP - n)
            for _ in range(1, p.blocks):
                at += share
                total += load_n(ctag, at, p.NP - n)
            store_n(ctag, target + t * row + n * cs, total, p.N - n)
