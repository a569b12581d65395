"""One decoding step of the selective scan on a CPU, state updated in place. Vectors hold states, not channels."""

from __future__ import annotations

import numpy as np

from salience.ops.constants import LOG2E
from salience.ops.simd.arithmetic import exp2, fma, horizontal_sum, sigmoid, softplus, splat
from salience.ops.simd.inlined import load_strided
from salience.ops.simd.kernel import kernel
from salience.ops.simd.load_store import load, load_n, load_splat, store, store_n, store_scalar
from salience.ops.simd.registers import compute_size, lanes, size

ROW = 64  # bytes of a vector
TENSORS = ("state", "state_b", "state_d", "u", "u_b", "u_d", "dt", "dt_b", "dt_d", "z", "z_b", "z_d")
MATRICES = ("A", "A_d", "B", "B_b", "B_g", "C", "C_b", "C_g")
FIELDS = (*TENSORS, *MATRICES, "skip", "bias", "y", "D", "N", "channels", "span", "parts", "softplus")
STEP = np.dtype([(name, "i8") for name in FIELDS])


@kernel(STEP)
def step_kernel(tag, ctag, params, task):
    """`span` channels of one row of the batch. B and C are in the compute type, their states and A's side by side."""
    p = params[0]
    b, part = task // p.parts, task % p.parts
    s, cs, W = size(tag), compute_size(ctag), lanes(ctag)
    scratch = np.empty(4 * ROW, np.uint8)
    step, drive, out = scratch.ctypes.data, scratch.ctypes.data + ROW, scratch.ctypes.data + 2 * ROW
    raw, log2e = scratch.ctypes.data + 3 * ROW, splat(ctag, LOG2E)
    last = min((part + 1) * p.span, p.D)
    for c in range(part * p.span, last, W):
        n = min(W, last - c)
        u = load_strided(tag, p.u + b * p.u_b + c * p.u_d, p.u_d, n, raw)
        dt = load_strided(tag, p.dt + b * p.dt_b + c * p.dt_d, p.dt_d, n, raw)
        if p.bias != 0:
            dt = dt + load_n(ctag, p.bias + c * cs, n)
        if p.softplus != 0:
            dt = softplus(dt)
        store(ctag, step, dt)
        store(ctag, drive, dt * u)
        store(ctag, out, splat(ctag, 0.0))
        for i in range(n):
            channel = c + i
            group = channel // p.channels
            row, A = p.state + b * p.state_b + channel * p.state_d, p.A + channel * p.A_d
            B, C = p.B + b * p.B_b + group * p.B_g, p.C + b * p.C_b + group * p.C_g
            d, x = load_splat(ctag, step + i * cs) * log2e, load_splat(ctag, drive + i * cs)
            total = splat(ctag, 0.0)
            for k in range(0, p.N, W):
                m, at = p.N - k, k * cs
                h = fma(exp2(d * load_n(ctag, A + at, m)), load_n(ctag, row + at, m), x * load_n(ctag, B + at, m))
                store_n(ctag, row + at, h, m)
                total = fma(h, load_n(ctag, C + at, m), total)
            store_scalar(ctag, out + i * cs, horizontal_sum(total))
        y = load(ctag, out)
        if p.skip != 0:
            y = fma(load_n(ctag, p.skip + c * cs, n), u, y)
        if p.z != 0:
            z = load_strided(tag, p.z + b * p.z_b + c * p.z_d, p.z_d, n, raw)
            y = y * (z * sigmoid(z))
        store_n(tag, p.y + (b * p.D + c) * s, y, n)
    scratch[0] = 0  # keeps it alive until here
