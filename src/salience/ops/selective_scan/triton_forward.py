"""The forward scan on a GPU: a program walks one segment of one row for a block of channels, states in registers.

A lane of a warp owns a channel and all its states (tiles are (N, channels), the last axis across the lanes), so C h is
summed without shuffles and loads along D coalesce. `UNROLL` steps are loaded before the first is computed.
"""

# ruff: noqa: RUF005 - Triton's language has `+` for tuples and no stars
from __future__ import annotations

import triton
import triton.language as tl

from salience.ops.selective_scan.triton_math import ROWS, sigmoid, softplus


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
