"""The backward scan on a GPU: tiles of 16 steps from the last to the first, each from its checkpoint.

For a tile and a state n: h by a scan from the checkpoint, its gradient by a scan the other way, both over time. The
rows of a tile lie in the registers of one lane, so that both scans are plain loops without shuffles. Only dB and dC are
summed across lanes: a partial sum for each block of channels, added up after, so that two runs give the same bits.
What a state hands from tile to tile (q and dA's sum) goes through memory that stays in cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from salience.ops.selective_scan.triton_math import ROWS, compose, sigmoid, softplus


@triton.jit(do_not_specialize=ROWS)
def backward_kernel(dy, u, dt, z, B, C, A, D, bias, codes, states, entry,
                    du, ddt, dz, dB, dC, dA, dD, dbias, q_state,
                    dy_b, dy_l, dy_d, u_b, u_l, u_d, dt_b, dt_l, dt_d, z_b, z_l, z_d,
                    B_b, B_l, B_g, B_n, C_b, C_l, C_g, C_n,
                    length, width, N, channels, groups, blocks, segments, tiles, tiles_per_segment,
                    HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_CODES: tl.constexpr,
                    HAS_ENTRY: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, COMPUTE: tl.constexpr,
                    TERMS: tl.constexpr, LN2: tl.constexpr, TILE: tl.constexpr, BN: tl.constexpr,
                    BD: tl.constexpr):  # fmt: skip
    """One segment of one row, a block of channels.

    q, the gradient of the state before a step: q_t = a_t (q_{t+1} + dy_t C_t). The gradient of the state after it is
    g_t = q_{t+1} + dy_t C_t. `entry` is q after the segment; `q_state` is left as q before it.
    """
    block, segment, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    g = block // blocks
    inside = (block % blocks) * BD + tl.arange(0, BD)
    on = inside < channels
    d = g * channels + inside
    rows = tl.arange(0, TILE)
    skip = tl.zeros((BD,), COMPUTE)
    if HAS_D:
        skip = tl.load(D + d, mask=on, other=0.0)
    shift = tl.zeros((BD,), COMPUTE)
    if HAS_BIAS:
        shift = tl.load(bias + d, mask=on, other=0.0)
    here = (b * segments + segment) * N * width
    all_n = tl.arange(0, BN).to(tl.int64)
    both = (all_n < N)[:, None] & on[None, :]
    square = here + all_n[:, None] * width + d[None, :]
    q = tl.zeros((BN, BD), COMPUTE)
    tl.store(dA + square, q, mask=both)
    if HAS_ENTRY:
        q = tl.load(entry + square, mask=both, other=0.0)
    tl.store(q_state + square, q, mask=both)
    tl.debug_barrier()

    d_skip, d_shift = tl.zeros((BD,), COMPUTE), tl.zeros((BD,), COMPUTE)
    first = segment * tiles_per_segment
    count = tl.minimum(tiles - first, tiles_per_segment)
    partial = ((block % blocks) * tl.num_programs(2) + b) * length
    for k in range(count):
        tile = first + count - 1 - k
        i = tile * TILE + rows
        at = i
        if REVERSE:
            at = length - 1 - i
        kind = tl.where(i < length, 1, 0)
        if HAS_CODES:
            kind = tl.load(codes + b * length + at, mask=i < length, other=0).to(tl.int32)
        valid = kind > 0
        live = valid[:, None] & on[None, :]
        x = tl.load(u + b * u_b + (at * u_l)[:, None] + (d * u_d)[None, :], mask=live, other=0.0).to(COMPUTE)
        raw = tl.load(dt + b * dt_b + (at * dt_l)[:, None] + (d * dt_d)[None, :], mask=live, other=0.0).to(COMPUTE)
        gy = tl.load(dy + b * dy_b + (at * dy_l)[:, None] + (d * dy_d)[None, :], mask=live, other=0.0).to(COMPUTE)
        raw += shift[None, :]
        delta = raw
        if SOFTPLUS:
            delta = softplus(raw, TERMS)
        delta = tl.where(valid[:, None], delta, 0.0)
        if HAS_Z:
            gate = tl.load(z + b * z_b + (at * z_l)[:, None] + (d * z_d)[None, :], mask=live, other=0.0).to(COMPUTE)
            slope = sigmoid(gate)
            d_gate = gy * slope * (1 + gate * (1 - slope))
            gy = gy * gate * slope
        drive = delta * x
        out = skip[None, :] * x  # y before the gate
        into = tl.zeros((TILE, BD), COMPUTE)  # sum of g B
        d_log = tl.zeros((TILE, BD), COMPUTE)  # sum of g a h_before A, A in base 2
        one = tl.full((TILE, BD), 1.0, COMPUTE)
        for n in range(N):
            bn = tl.load(B + b * B_b + at * B_l + g * B_g + n * B_n, mask=valid, other=0.0).to(COMPUTE)
            cn = tl.load(C + b * C_b + at * C_l + g * C_g + n * C_n, mask=valid, other=0.0).to(COMPUTE)
            a2 = tl.load(A + n * width + d, mask=on, other=0.0)
            h0 = tl.load(states + ((b * tiles + tile) * N + n) * width + d, mask=on, other=0.0)
            q0 = tl.load(q_state + here + n * width + d, mask=on, other=0.0)
            a = tl.exp2(delta * a2[None, :])
            if HAS_CODES:
                a = tl.where((kind == 2)[:, None], 0.0, a)
            before = tl.where((rows == 0)[:, None], h0[None, :], 0.0)
            _, h, _, before = tl.associative_scan((a, drive * bn[:, None] + a * before, one, before), 0, compose)
            # backwards in time; a scan's own `reverse` would turn the lanes around as well, by shuffles
            c = gy * cn[:, None]
            back, after = tl.flip(a, 0), tl.where((rows == 0)[:, None], q0[None, :], 0.0)
            _, q, _, after = tl.associative_scan((back, back * (tl.flip(c, 0) + after), one, after), 0, compose)
            grad = c + tl.flip(after, 0)
            kept = grad * a * before
            out += h * cn[:, None]
            into += grad * bn[:, None]
            d_log += kept * a2[None, :]
            place = (partial + at) * groups * N + g * N + n
            tl.store(dC + place, tl.sum(gy * h, axis=1), mask=i < length)
            tl.store(dB + place, tl.sum(grad * drive, axis=1), mask=i < length)
            mine = here + n * width + d
            d_a = tl.load(dA + mine, mask=on, other=0.0)
            tl.store(dA + mine, d_a + tl.sum(kept * delta, axis=0), mask=on)
            tl.store(q_state + mine, tl.sum(tl.where((rows == TILE - 1)[:, None], q, 0.0), axis=0), mask=on)
        tl.debug_barrier()  # the next tile may read these rows in other lanes

        written = (i < length)[:, None] & on[None, :]
        spot = ((b * length + at) * width)[:, None] + d[None, :]
        d_raw = d_log * LN2 + x * into
        if SOFTPLUS:
            d_raw = d_raw * sigmoid(raw)
        d_raw = tl.where(valid[:, None], d_raw, 0.0)
        tl.store(du + spot, (gy * skip[None, :] + delta * into).to(du.dtype.element_ty), mask=written)
        tl.store(ddt + spot, d_raw.to(ddt.dtype.element_ty), mask=written)
        if HAS_Z:
            tl.store(dz + spot, (d_gate * out).to(dz.dtype.element_ty), mask=written)
        d_skip += tl.sum(gy * x, axis=0)
        d_shift += tl.sum(d_raw, axis=0)
    if HAS_D:
        tl.store(dD + (b * segments + segment) * width + d, d_skip, mask=on)
    if HAS_BIAS:
        tl.store(dbias + (b * segments + segment) * width + d, d_shift, mask=on)
