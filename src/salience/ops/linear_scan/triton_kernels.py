"""The linear scan on a GPU: a lane owns a channel of one row and goes from step to step, its state in registers.

Loads coalesce along the channels. The states the backward pass needs are the forward pass' output.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def forward_kernel(a, b, entry, codes, x, last, a_b, a_l, a_p, b_b, b_l, b_p, length, width,
                   PLANES: tl.constexpr, VARYING: tl.constexpr, HAS_ENTRY: tl.constexpr, HAS_CODES: tl.constexpr,
                   REVERSE: tl.constexpr, COMPUTE: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """A block of channels of one row."""
    d, row = tl.program_id(0) * BD + tl.arange(0, BD).to(tl.int64), tl.program_id(1).to(tl.int64)
    on = d < width
    ar, ai = tl.zeros((BD,), COMPUTE), tl.zeros((BD,), COMPUTE)
    hr, hi = tl.zeros((BD,), COMPUTE), tl.zeros((BD,), COMPUTE)
    state = row * PLANES * width + d
    if HAS_ENTRY:
        hr = tl.load(entry + state, mask=on, other=0.0)
        if PLANES == 2:
            hi = tl.load(entry + state + width, mask=on, other=0.0)
    if not VARYING:
        ar = tl.load(a + d, mask=on, other=0.0)
        if PLANES == 2:
            ai = tl.load(a + a_p + d, mask=on, other=0.0)
    for s in range(length):
        t = row * 0 + s
        if REVERSE:
            t = length - 1 - t
        kind = 1
        if HAS_CODES:
            kind = tl.load(codes + row * length + s).to(tl.int32)
        live = on & (kind > 0)
        if VARYING:
            at = a + row * a_b + t * a_l + d
            ar = tl.load(at, mask=live, other=0.0)
            if PLANES == 2:
                ai = tl.load(at + a_p, mask=live, other=0.0)
        at = b + row * b_b + t * b_l + d
        into = x + (row * length + t) * PLANES * width + d
        pr, pi = hr, hi
        if HAS_CODES:
            pr, pi = tl.where(kind == 2, 0.0, hr), tl.where(kind == 2, 0.0, hi)
        if PLANES == 2:
            nr = ar * pr - ai * pi + tl.load(at, mask=live, other=0.0)
            ni = ar * pi + ai * pr + tl.load(at + b_p, mask=live, other=0.0)
            hi = tl.where(live, ni, hi)
            tl.store(into + width, tl.where(live, ni, 0.0), mask=on)
        else:
            nr = ar * pr + tl.load(at, mask=live, other=0.0)
        hr = tl.where(live, nr, hr)
        tl.store(into, tl.where(live, nr, 0.0), mask=on)
    tl.store(last + state, hr, mask=on)
    if PLANES == 2:
        tl.store(last + state + width, hi, mask=on)


@triton.jit
def backward_kernel(dx, dlast, x, a, entry, codes, before, da, db, dentry, a_b, a_l, a_p, x_b, x_l, x_p, length, width,
                    PLANES: tl.constexpr, VARYING: tl.constexpr, HAS_ENTRY: tl.constexpr, HAS_CODES: tl.constexpr,
                    HAS_LAST: tl.constexpr, REVERSE: tl.constexpr, COMPUTE: tl.constexpr,
                    BD: tl.constexpr):  # fmt: skip
    """A block of channels of one row, from the last step scanned to the first; x_*: strides of dx.

    `before`: (B, L) int64, in scan order, the step scanned before a valid one, -1 where that is the initial state.
    """
    d, row = tl.program_id(0) * BD + tl.arange(0, BD).to(tl.int64), tl.program_id(1).to(tl.int64)
    on = d < width
    zero = tl.zeros((BD,), COMPUTE)
    ar, ai, h0r, h0i, qr, qi, sum_r, sum_i = zero, zero, zero, zero, zero, zero, zero, zero
    state = row * PLANES * width + d
    if HAS_ENTRY:
        h0r = tl.load(entry + state, mask=on, other=0.0)
        if PLANES == 2:
            h0i = tl.load(entry + state + width, mask=on, other=0.0)
    if HAS_LAST:
        qr = tl.load(dlast + state, mask=on, other=0.0)
        if PLANES == 2:
            qi = tl.load(dlast + state + width, mask=on, other=0.0)
    if not VARYING:
        ar = tl.load(a + d, mask=on, other=0.0)
        if PLANES == 2:
            ai = tl.load(a + a_p + d, mask=on, other=0.0)
    for k in range(length):
        s = row * 0 + length - 1 - k
        t = s
        if REVERSE:
            t = length - 1 - s
        kind = 1
        prior = s - 1
        if HAS_CODES:
            kind = tl.load(codes + row * length + s).to(tl.int32)
            prior = tl.load(before + row * length + s)
        live = on & (kind > 0)
        u = prior
        if REVERSE:
            u = length - 1 - prior
        inner, first = live & (prior >= 0) & (kind != 2), live & (prior < 0) & (kind != 2)
        spot = x + (row * length + u) * PLANES * width + d
        here = (row * length + t) * PLANES * width + d
        from_x = dx + row * x_b + t * x_l + d
        xr = tl.load(spot, mask=inner, other=0.0) + tl.where(first, h0r, 0.0)
        gr = qr + tl.load(from_x, mask=live, other=0.0)
        tl.store(db + here, tl.where(live, gr, 0.0), mask=on)
        if VARYING:
            at = a + row * a_b + t * a_l + d
            ar = tl.load(at, mask=live, other=0.0)
            if PLANES == 2:
                ai = tl.load(at + a_p, mask=live, other=0.0)
        if PLANES == 2:
            xi = tl.load(spot + width, mask=inner, other=0.0) + tl.where(first, h0i, 0.0)
            gi = qi + tl.load(from_x + x_p, mask=live, other=0.0)
            tl.store(db + here + width, tl.where(live, gi, 0.0), mask=on)
            dr, di = gr * xr + gi * xi, gi * xr - gr * xi
            nr, ni = gr * ar + gi * ai, gi * ar - gr * ai
            if HAS_CODES:
                ni = tl.where(kind == 2, 0.0, ni)
            qi = tl.where(live, ni, qi)
            if VARYING:
                tl.store(da + here + width, tl.where(live, di, 0.0), mask=on)
            else:
                sum_i += tl.where(live, di, 0.0)
        else:
            dr, nr = gr * xr, gr * ar
        if HAS_CODES:
            nr = tl.where(kind == 2, 0.0, nr)
        qr = tl.where(live, nr, qr)
        if VARYING:
            tl.store(da + here, tl.where(live, dr, 0.0), mask=on)
        else:
            sum_r += tl.where(live, dr, 0.0)
    tl.store(dentry + state, qr, mask=on)
    if PLANES == 2:
        tl.store(dentry + state + width, qi, mask=on)
    if not VARYING:
        tl.store(da + state, sum_r, mask=on)
        if PLANES == 2:
            tl.store(da + state + width, sum_i, mask=on)
