"""The selective scan's kernels for a GPU.

Forward, a program walks one segment of one row for a block of channels, states in registers. A lane of a warp owns a
channel and all its states (tiles are (N, channels), the last axis across the lanes), so C h is summed without shuffles
and loads along D coalesce. `UNROLL` steps are loaded before the first is computed.

Backward, tiles of 16 steps from the last to the first, each from its checkpoint. For a tile and a state n: h by a scan
from the checkpoint, its gradient by a scan the other way, both over time. The rows of a tile lie in the registers of
one lane, so that both scans are plain loops without shuffles. Only dB and dC are summed across lanes: a partial sum for
each block of channels, added up after, so that two runs give the same bits. What a state hands from tile to tile (q and
dA's sum) goes through memory that stays in cache.
"""

# ruff: noqa: RUF005 - Triton's language has `+` for tuples and no stars
from __future__ import annotations

import triton
import triton.language as tl

#: Steps between two checkpoints of the state, and of a tile of the backward kernel.
TILE = 16

#: Integers that Triton must not specialise on. A row's alignment unknown, loads are of one element a lane, and so a
#: tile's lanes lie along the channels alone: a lane has a channel's whole column. (Strides along channels, `*_d`, are
#: specialised: 1 is the case that coalesces.)
ROWS = (
    *(f"{name}_{axis}" for name in ("dy", "u", "dt", "z") for axis in "bl"),
    *(f"{name}_{axis}" for name in "BC" for axis in "blg"),
    *("length", "width", "N", "channels", "groups", "blocks", "segments", "tiles", "tiles_per_segment"),
)


@triton.jit
def log1p_small(e, TERMS: tl.constexpr):
    """log(1 + e) for e in [0, 1], as 2 artanh(e / (2 + e)): the GPU's log2 is absolute, not relative, around 1."""
    s = e / (2 + e)
    square = s * s
    total = square * 0 + 1.0 / (2 * TERMS - 1)
    for k in tl.static_range(TERMS - 1):
        total = total * square + 1.0 / (2 * (TERMS - k) - 3)
    return 2 * s * total


@triton.jit
def softplus(x, TERMS: tl.constexpr):
    """log(1 + exp(x)) with full relative accuracy."""
    return tl.maximum(x, 0.0) + log1p_small(tl.exp(-tl.abs(x)), TERMS)


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def compose(a1, b1, ax1, bx1, a2, b2, ax2, bx2):
    """The map x -> a x + b of two steps, one after the other; (ax, bx) is the map without the last step.

    A scan of it gives b, the state after each step, and bx, the state before it: no shift between rows of a tile.
    """
    return a2 * a1, a2 * b1 + b2, ax2 * a1, ax2 * b1 + bx2


@triton.jit(do_not_specialize=ROWS)
def forward_kernel(u, dt, z, B, C, A, D, bias, codes, entry, y, states, leave, sums,
                   u_b, u_l, u_d, dt_b, dt_l, dt_d, z_b, z_l, z_d, B_b, B_l, B_g, B_n, C_b, C_l, C_g, C_n,
                   length, width, N, channels, blocks, segments, tiles, tiles_per_segment,
                   HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_CODES: tl.constexpr,
                   HAS_ENTRY: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, SAVE: tl.constexpr,
                   STATE_ONLY: tl.constexpr, ADJOINT: tl.constexpr, COMPUTE: tl.constexpr, TERMS: tl.constexpr,
                   TILE: tl.constexpr, UNROLL: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """One segment. h = a h + dt u B, y = C h + D u, gated.

    STATE_ONLY: no y; the state after the segment and the sum of dt in it (inf where a sequence begins) are left.
    ADJOINT: the segment's share of the gradient instead, from its end to its beginning: q = a (q + dy C), `u` being dy.
    """
    block, segment, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    g = block // blocks
    inside = (block % blocks) * BD + tl.arange(0, BD)
    on = inside < channels
    d = g * channels + inside
    n = tl.arange(0, BN).to(tl.int64)
    both = (n < N)[:, None] & on[None, :]
    square = n[:, None] * width + d[None, :]
    a2 = tl.load(A + square, mask=both, other=0.0)
    h = tl.zeros((BN, BD), COMPUTE)
    if HAS_ENTRY:
        h = tl.load(entry + (b * segments + segment) * N * width + square, mask=both, other=0.0)
    skip = tl.zeros((BD,), COMPUTE)
    if HAS_D:
        skip = tl.load(D + d, mask=on, other=0.0)
    shift = tl.zeros((BD,), COMPUTE)
    if HAS_BIAS:
        shift = tl.load(bias + d, mask=on, other=0.0)
    total = tl.zeros((BD,), COMPUTE)

    first = segment * tiles_per_segment
    count = tl.minimum(tiles - first, tiles_per_segment)
    for k in range(count):
        tile = first + k
        if ADJOINT:
            tile = first + count - 1 - k
        if SAVE:
            tl.store(states + (b * tiles + tile) * N * width + square, h, mask=both)
        for start in range(0, TILE, UNROLL):
            xs, ds, zs, bs, cs, kinds, places = (), (), (), (), (), (), ()
            for j in tl.static_range(UNROLL):
                i = tile * TILE + start + j
                if ADJOINT:
                    i = tile * TILE + TILE - 1 - start - j
                kind = tl.where(i < length, 1, 0)
                at = i
                if REVERSE:
                    at = length - 1 - i
                if HAS_CODES:
                    kind = tl.load(codes + b * length + at, mask=i < length, other=0).to(tl.int32)
                live = on & (kind > 0)
                states_live = (n < N) & (kind > 0)
                xs = xs + (tl.load(u + b * u_b + at * u_l + d * u_d, mask=live, other=0.0).to(COMPUTE),)
                ds = ds + (tl.load(dt + b * dt_b + at * dt_l + d * dt_d, mask=live, other=0.0).to(COMPUTE),)
                if HAS_Z:
                    zs = zs + (tl.load(z + b * z_b + at * z_l + d * z_d, mask=live, other=0.0).to(COMPUTE),)
                if not ADJOINT:
                    row = tl.load(B + b * B_b + at * B_l + g * B_g + n * B_n, mask=states_live, other=0.0)
                    bs = bs + (row.to(COMPUTE),)
                if ADJOINT or not STATE_ONLY:
                    row = tl.load(C + b * C_b + at * C_l + g * C_g + n * C_n, mask=states_live, other=0.0)
                    cs = cs + (row.to(COMPUTE),)
                kinds = kinds + (kind,)
                places = places + (at,)
            for j in tl.static_range(UNROLL):
                delta = ds[j] + shift
                if SOFTPLUS:
                    delta = softplus(delta, TERMS)
                delta = tl.where(kinds[j] > 0, delta, 0.0)
                a = tl.exp2(delta[None, :] * a2)
                if HAS_CODES:
                    a = tl.where(kinds[j] == 2, 0.0, a)
                    total = tl.where(kinds[j] == 2, float("inf"), total)
                total += delta
                x = xs[j]
                if ADJOINT:
                    if HAS_Z:
                        x = x * zs[j] * sigmoid(zs[j])
                    h = a * (h + x[None, :] * cs[j][:, None])
                else:
                    h = a * h + (delta * x)[None, :] * bs[j][:, None]
                if not STATE_ONLY:
                    out = tl.sum(h * cs[j][:, None], axis=0) + skip * x
                    if HAS_Z:
                        out = out * zs[j] * sigmoid(zs[j])
                    out = tl.where(kinds[j] > 0, out, 0.0)
                    i = tile * TILE + start + j
                    spot = y + (b * length + places[j]) * width + d
                    tl.store(spot, out.to(y.dtype.element_ty), mask=on & (i < length))
    tl.store(leave + (b * segments + segment) * N * width + square, h, mask=both)
    if STATE_ONLY:
        tl.store(sums + (b * segments + segment) * width + d, total, mask=on)


@triton.jit
def carry_kernel(A, sums, entry, shares, last, width, N, segments,
                 BACKWARD: tl.constexpr, HAS_ENTRY: tl.constexpr, COMPUTE: tl.constexpr,
                 BD: tl.constexpr):  # fmt: skip
    """Turn each segment's share (its final state from a zero state) into the state before it; `last`: after all."""
    d, n, b = tl.program_id(0) * BD + tl.arange(0, BD).to(tl.int64), tl.program_id(1), tl.program_id(2).to(tl.int64)
    on = d < width
    a2 = tl.load(A + n * width + d, mask=on, other=0.0)
    h = tl.zeros((BD,), COMPUTE)
    if HAS_ENTRY:
        h = tl.load(entry + (b * N + n) * width + d, mask=on, other=0.0)
    for k in range(segments):
        s = k
        if BACKWARD:
            s = segments - 1 - k
        total = tl.load(sums + (b * segments + s) * width + d, mask=on, other=0.0)
        place = shares + ((b * segments + s) * N + n) * width + d
        share = tl.load(place, mask=on, other=0.0)
        tl.store(place, h, mask=on)
        cut = total == float("inf")
        h = tl.where(cut, 0.0, tl.exp2(tl.where(cut, 0.0, total) * a2) * h) + share
    tl.store(last + (b * N + n) * width + d, h, mask=on)


@triton.jit
def step_kernel(state, u, dt, z, B, C, A, D, bias, y,
                s_b, s_d, s_n, u_b, u_d, dt_b, dt_d, z_b, z_d, B_b, B_g, B_n, C_b, C_g, C_n, A_d, A_n,
                width, N, channels, HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr,
                SOFTPLUS: tl.constexpr, COMPUTE: tl.constexpr, TERMS: tl.constexpr, BN: tl.constexpr,
                BD: tl.constexpr):  # fmt: skip
    """One decoding step of a block of channels of one row, its states updated in place.

    h = exp(dt A) h + dt u B, y = C h + D u, gated. A lane owns a channel; a block may meet several groups.
    """
    b = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0).to(tl.int64) * BD + tl.arange(0, BD)
    n = tl.arange(0, BN)[:, None]
    on = d < width
    both = (n < N) & on[None, :]
    g = (d // channels)[None, :]
    x = tl.load(u + b * u_b + d * u_d, mask=on, other=0.0).to(COMPUTE)
    delta = tl.load(dt + b * dt_b + d * dt_d, mask=on, other=0.0).to(COMPUTE)
    if HAS_BIAS:
        delta += tl.load(bias + d, mask=on, other=0.0)
    if SOFTPLUS:
        delta = softplus(delta, TERMS)
    a = tl.load(A + d[None, :] * A_d + n * A_n, mask=both, other=0.0).to(COMPUTE)
    bn = tl.load(B + b * B_b + g * B_g + n * B_n, mask=both, other=0.0).to(COMPUTE)
    cn = tl.load(C + b * C_b + g * C_g + n * C_n, mask=both, other=0.0).to(COMPUTE)
    place = state + b * s_b + d[None, :] * s_d + n * s_n
    h = tl.load(place, mask=both, other=0.0).to(COMPUTE)
    h = tl.exp(delta[None, :] * a) * h + (delta * x)[None, :] * bn
    tl.store(place, h.to(state.dtype.element_ty), mask=both)
    out = tl.sum(h * cn, axis=0)
    if HAS_D:
        out += x * tl.load(D + d, mask=on, other=0.0)
    if HAS_Z:
        gate = tl.load(z + b * z_b + d * z_d, mask=on, other=0.0).to(COMPUTE)
        out = out * gate * sigmoid(gate)
    tl.store(y + b * width + d, out.to(y.dtype.element_ty), mask=on)


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
