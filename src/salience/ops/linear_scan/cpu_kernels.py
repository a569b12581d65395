"""The linear scan on a CPU, forward and backward: lanes are channels, a task is a vector of channels of one row.

Time goes by step by step. Two multiply-adds follow each other in a step of a complex state (8 cycles), which is less
than what reading b and writing x take once they do not fit into the cache; so nothing is unrolled. A task first lists
its steps in scan order. Masked steps are not in the list, so they are never read.
"""

from __future__ import annotations

import numpy as np

from salience.ops.segment_codes import ABSENT, RESTART, VALID
from salience.ops.simd.arithmetic import fma, splat
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import load_byte, load_n, store_n
from salience.ops.simd.registers import compute_size, lanes

TENSORS = [("a", "i8"), ("a_b", "i8"), ("a_l", "i8"), ("a_p", "i8"), ("b", "i8"), ("b_b", "i8"), ("b_l", "i8")]
TENSORS += [("b_p", "i8"), ("h0", "i8"), ("x", "i8"), ("codes", "i8")]
SIZES = [(name, "i8") for name in ("L", "D", "planes", "blocks", "varying", "reverse")]
FORWARD = np.dtype([*TENSORS, *SIZES, ("last", "i8")])
#: b is the gradient of x here; `da` has a step for each of a's, or one for each row where a is the same at every step.
BACKWARD = np.dtype([*TENSORS, *SIZES, *((name, "i8") for name in ("dlast", "da", "db", "dh0"))])


@inline
def plan(p, row, times, starts):
    """Fill `times` with the valid steps in scan order, `starts` with 1 where the state restarts; returns the count."""
    count = 0
    for s in range(p.L):
        code = VALID
        if p.codes != 0:
            code = load_byte(p.codes + row * p.L + s)
        if code != ABSENT:
            times[count] = p.L - 1 - s if p.reverse != 0 else s
            starts[count] = 1 if code == RESTART else 0
            count += 1
    return count


@inline
def scan_real(tag, p, a, b, x, h, times, starts, count, step, n):
    """One plane: h after the last step."""
    factor = splat(tag, 0.0)
    if p.varying == 0:
        factor = load_n(tag, a, n)
    for i in range(count):
        t = times[i]
        if starts[i] != 0:
            h = splat(tag, 0.0)
        if p.varying != 0:
            factor = load_n(tag, a + t * p.a_l, n)
        h = fma(factor, h, load_n(tag, b + t * p.b_l, n))
        store_n(tag, x + t * step, h, n)
    return h


@inline
def scan_complex(tag, p, a, b, x, hr, hi, times, starts, count, step, n):
    """Two planes: h after the last step."""
    ar, ai, zero = splat(tag, 0.0), splat(tag, 0.0), splat(tag, 0.0)
    plane = p.D * compute_size(tag)
    if p.varying == 0:
        ar, ai = load_n(tag, a, n), load_n(tag, a + p.a_p, n)
    for i in range(count):
        t = times[i]
        if starts[i] != 0:
            hr, hi = zero, zero
        if p.varying != 0:
            ar, ai = load_n(tag, a + t * p.a_l, n), load_n(tag, a + t * p.a_l + p.a_p, n)
        at = b + t * p.b_l
        real = fma(ar, hr, fma(zero - ai, hi, load_n(tag, at, n)))
        hi = fma(ar, hi, fma(ai, hr, load_n(tag, at + p.b_p, n)))
        hr = real
        store_n(tag, x + t * step, hr, n)
        store_n(tag, x + t * step + plane, hi, n)
    return hr, hi


@kernel(FORWARD)
def forward_kernel(tag, params, task):
    """One vector of channels of one row."""
    p = params[0]
    row, first = task // p.blocks, task % p.blocks * lanes(tag)
    s, n = compute_size(tag), p.D - first
    times, starts = np.empty(p.L, np.int64), np.empty(p.L, np.uint8)
    count = plan(p, row, times, starts)
    step, plane = p.planes * p.D * s, p.D * s
    a, b = p.a + row * p.a_b + first * s, p.b + row * p.b_b + first * s
    x, state = p.x + row * p.L * step + first * s, row * step + first * s
    hr, hi = splat(tag, 0.0), splat(tag, 0.0)
    if p.h0 != 0:
        hr = load_n(tag, p.h0 + state, n)
        if p.planes == 2:
            hi = load_n(tag, p.h0 + state + plane, n)
    if p.planes == 2:
        hr, hi = scan_complex(tag, p, a, b, x, hr, hi, times, starts, count, step, n)
        store_n(tag, p.last + state + plane, hi, n)
    else:
        hr = scan_real(tag, p, a, b, x, hr, times, starts, count, step, n)
    store_n(tag, p.last + state, hr, n)


@inline
def back_real(tag, p, a, dx, x, h0, g, da, db, times, starts, count, step, n):
    """One plane: the gradient of the initial state and, where a is the same at every step, its gradient."""
    factor, total, zero = splat(tag, 0.0), splat(tag, 0.0), splat(tag, 0.0)
    if p.varying == 0:
        factor = load_n(tag, a, n)
    for k in range(count):
        i = count - 1 - k
        t = times[i]
        g = g + load_n(tag, dx + t * p.b_l, n)
        store_n(tag, db + t * step, g, n)
        before = h0
        if starts[i] != 0:
            before = zero
        elif i > 0:
            before = load_n(tag, x + times[i - 1] * step, n)
        if p.varying != 0:
            factor = load_n(tag, a + t * p.a_l, n)
            store_n(tag, da + t * step, g * before, n)
        else:
            total = fma(g, before, total)
        g = g * factor
        if starts[i] != 0:
            g = zero
    return g, total


@inline
def back_complex(tag, p, a, dx, x, h0r, h0i, gr, gi, da, db, times, starts, count, step, n):
    """Two planes, as `back_real`: the gradient of a product is the gradient times the other's conjugate."""
    ar, ai, zero = splat(tag, 0.0), splat(tag, 0.0), splat(tag, 0.0)
    tr, ti = splat(tag, 0.0), splat(tag, 0.0)
    plane = p.D * compute_size(tag)
    if p.varying == 0:
        ar, ai = load_n(tag, a, n), load_n(tag, a + p.a_p, n)
    for k in range(count):
        i = count - 1 - k
        t = times[i]
        gr, gi = gr + load_n(tag, dx + t * p.b_l, n), gi + load_n(tag, dx + t * p.b_l + p.b_p, n)
        store_n(tag, db + t * step, gr, n)
        store_n(tag, db + t * step + plane, gi, n)
        xr, xi = h0r, h0i
        if starts[i] != 0:
            xr, xi = zero, zero
        elif i > 0:
            at = x + times[i - 1] * step
            xr, xi = load_n(tag, at, n), load_n(tag, at + plane, n)
        if p.varying != 0:
            ar, ai = load_n(tag, a + t * p.a_l, n), load_n(tag, a + t * p.a_l + p.a_p, n)
            store_n(tag, da + t * step, fma(gr, xr, gi * xi), n)
            store_n(tag, da + t * step + plane, fma(gi, xr, zero - gr * xi), n)
        else:
            tr = fma(gr, xr, fma(gi, xi, tr))
            ti = fma(gi, xr, fma(zero - gr, xi, ti))
        real = fma(gr, ar, gi * ai)
        gi = fma(gi, ar, zero - gr * ai)
        gr = real
        if starts[i] != 0:
            gr, gi = zero, zero
    return gr, gi, tr, ti


@kernel(BACKWARD)
def backward_kernel(tag, params, task):
    """One vector of channels of one row, from the last step scanned to the first."""
    p = params[0]
    row, first = task // p.blocks, task % p.blocks * lanes(tag)
    s, n = compute_size(tag), p.D - first
    times, starts = np.empty(p.L, np.int64), np.empty(p.L, np.uint8)
    count = plan(p, row, times, starts)
    step, plane = p.planes * p.D * s, p.D * s
    a, dx = p.a + row * p.a_b + first * s, p.b + row * p.b_b + first * s
    whole, state = row * p.L * step + first * s, row * step + first * s
    da = p.da + (whole if p.varying != 0 else state)
    h0r, h0i, gr, gi = splat(tag, 0.0), splat(tag, 0.0), splat(tag, 0.0), splat(tag, 0.0)
    if p.h0 != 0:
        h0r = load_n(tag, p.h0 + state, n)
        if p.planes == 2:
            h0i = load_n(tag, p.h0 + state + plane, n)
    if p.dlast != 0:
        gr = load_n(tag, p.dlast + state, n)
        if p.planes == 2:
            gi = load_n(tag, p.dlast + state + plane, n)
    x, db = p.x + whole, p.db + whole
    if p.planes == 2:
        gr, gi, tr, ti = back_complex(
            tag, p, a, dx, x, h0r, h0i, gr, gi, da, db, times, starts, count, step, n
        )  # fmt: skip
        store_n(tag, p.dh0 + state + plane, gi, n)
        if p.varying == 0:
            store_n(tag, da + plane, ti, n)
    else:
        gr, tr = back_real(tag, p, a, dx, x, h0r, gr, da, db, times, starts, count, step, n)
    store_n(tag, p.dh0 + state, gr, n)
    if p.varying == 0:
        store_n(tag, da, tr, n)
