"""One decoding step of the scan on a GPU: a block of channels of one row, its states updated in place."""

from __future__ import annotations

import triton
import triton.language as tl

from salience.ops.selective_scan.triton_math import sigmoid, softplus


@triton.jit
def step_kernel(state, u, dt, z, B, C, A, D, bias, y,
                s_b, s_d, s_n, u_b, u_d, dt_b, dt_d, z_b, z_d, B_b, B_g, B_n, C_b, C_g, C_n, A_d, A_n,
                width, N, channels, HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr,
                SOFTPLUS: tl.constexpr, COMPUTE: tl.constexpr, TERMS: tl.constexpr, BN: tl.constexpr,
                BD: tl.constexpr):  # fmt: skip
    """h = exp(dt A) h + dt u B, y = C h + D u, gated. A lane owns a channel; a block may meet several groups."""
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
