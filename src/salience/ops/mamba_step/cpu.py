"""CPU kernel of `mamba_step`. A task is one row of the batch; its intermediate values stay in the nearest caches."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from salience.ops.causal_conv1d.cpu_step import convolve, read_taps
from salience.ops.constants import LOG2E
from salience.ops.kernel_arguments import address, place
from salience.ops.linear_rows.cpu import dot4
from salience.ops.simd.arithmetic import exp2, fma, horizontal_sum, sigmoid, softplus, splat, store4
from salience.ops.simd.element import element_of
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import load_n, load_scalar, load_splat, store, store_n, store_scalar
from salience.ops.simd.pool import KernelJob
from salience.ops.simd.registers import compute_size, lanes, size

ROW = 64  # bytes of a vector
FIELDS = ["x", "x_b", "z", "z_b", "conv", "conv_b", "conv_w", "conv_d", "state", "state_b", "state_d", "weight"]
FIELDS += ["weight_d", "weight_k", "conv_bias", "x_weight", "dt_weight", "dt_bias", "A_log", "A_d", "skip", "y"]
FIELDS += ["E", "N", "R", "W"]
PARAMS = np.dtype([(name, "i8") for name in FIELDS])


@inline
def bytes_of(ctag, n):
    """Bytes of n values, rounded up to whole vectors."""
    return (n * compute_size(ctag) + ROW - 1) // ROW * ROW


@inline
def multiply(tag, ctag, w, outputs, n, x, y, sums):
    """W x, four rows of W at a time and far apart, as in `linear_rows`; x and y in the compute type."""
    step, cs, apart = n * size(tag), compute_size(ctag), (outputs + 3) // 4
    for o0 in range(apart):
        o1, o2, o3 = min(o0 + apart, outputs - 1), min(o0 + 2 * apart, outputs - 1), min(o0 + 3 * apart, outputs - 1)
        store4(sums, dot4(tag, ctag, x, w + o0 * step, w + o1 * step, w + o2 * step, w + o3 * step, n))
        store_scalar(ctag, y + o0 * cs, load_scalar(ctag, sums))
        store_scalar(ctag, y + o1 * cs, load_scalar(ctag, sums + cs))
        store_scalar(ctag, y + o2 * cs, load_scalar(ctag, sums + 2 * cs))
        store_scalar(ctag, y + o3 * cs, load_scalar(ctag, sums + 3 * cs))


@inline
def advance(ptag, ctag, p, state, A_log, B, C, dt, x):
    """Advance the states of one channel by one step and return C h. dt: a vector of dt log2(e)   x: one of dt u"""
    cs, total = compute_size(ctag), splat(ctag, 0.0)
    log2e, minus = splat(ctag, LOG2E), splat(ctag, -1.0)
    for k in range(0, p.N, lanes(ctag)):
        m, at = p.N - k, k * cs
        A = exp2(load_n(ptag, A_log + k * size(ptag), m) * log2e) * minus
        h = fma(exp2(dt * A), load_n(ctag, state + at, m), x * load_n(ctag, B + at, m))
        store_n(ctag, state + at, h, m)
        total = fma(h, load_n(ctag, C + at, m), total)
    return horizontal_sum(total)


@inline
def scan(tag, ptag, ctag, p, b, u, selected, dt, rows):
    """The scan's step, skip and gate, for all channels; `rows` is scratch of three vectors."""
    cs, step, drive, out = compute_size(ctag), rows, rows + ROW, rows + 2 * ROW
    B, C = selected + p.R * cs, selected + (p.R + p.N) * cs
    for c in range(0, p.E, lanes(ctag)):
        n = min(lanes(ctag), p.E - c)
        x = load_n(ctag, u + c * cs, n)
        d = softplus(load_n(ctag, dt + c * cs, n) + load_n(ptag, p.dt_bias + c * size(ptag), n))
        store(ctag, step, d * splat(ctag, LOG2E))
        store(ctag, drive, d * x)
        store(ctag, out, splat(ctag, 0.0))
        for i in range(n):
            state, A_log = p.state + b * p.state_b + (c + i) * p.state_d, p.A_log + (c + i) * p.A_d
            decay, driven = load_splat(ctag, step + i * cs), load_splat(ctag, drive + i * cs)
            store_scalar(ctag, out + i * cs, advance(ptag, ctag, p, state, A_log, B, C, decay, driven))
        z = load_n(tag, p.z + b * p.z_b + c * size(tag), n)
        y = fma(load_n(ptag, p.skip + c * size(ptag), n), x, load_n(ctag, out, n))
        store_n(tag, p.y + (b * p.E + c) * size(tag), y * (z * sigmoid(z)), n)


@kernel(PARAMS)
def step_kernel(tag, ptag, ctag, params, task):
    """One row of the batch. The convolution's weights, A, D and dt's bias are of `ptag`."""
    p = params[0]
    cs, selection = compute_size(ctag), p.R + 2 * p.N
    scratch = np.empty(2 * bytes_of(ctag, p.E) + bytes_of(ctag, selection) + 10 * ROW, np.uint8)
    u = (scratch.ctypes.data + ROW - 1) // ROW * ROW
    dt = u + bytes_of(ctag, p.E)
    selected = dt + bytes_of(ctag, p.E)
    rows = selected + bytes_of(ctag, selection)  # nine
    for c in range(0, p.E, lanes(ctag)):
        n = min(lanes(ctag), p.E - c)
        read_taps(ptag, p.weight + c * p.weight_d, p.weight_d, p.weight_k, p.W, n, rows)
        bias = load_n(ptag, p.conv_bias + c * size(ptag), n) if p.conv_bias != 0 else splat(ctag, 0.0)
        x, window = p.x + task * p.x_b + c * size(tag), p.conv + task * p.conv_b + c * p.conv_d
        value = convolve(tag, ptag, x, size(tag), window, p.conv_w, p.conv_d, rows, p.W, bias, n, rows + 8 * ROW)
        store_n(ctag, u + c * cs, value * sigmoid(value), n)
    multiply(tag, ctag, p.x_weight, selection, p.E, u, selected, rows)
    multiply(tag, ctag, p.dt_weight, p.E, p.R, selected, dt, rows)
    scan(tag, ptag, ctag, p, task, u, selected, dt, rows)
    scratch[0] = 0  # keeps it alive until here


def call(conv_state: Tensor, state: Tensor, x: Tensor, z: Tensor, conv_weight: Tensor, conv_bias: Tensor | None,
         x_weight: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor,
         y: Tensor) -> KernelJob:  # fmt: skip
    """A step into y (B, E) as a job. It holds addresses: the caller keeps the tensors alive.

    conv_weight, conv_bias, dt_bias, A_log and D are of one dtype, last stride 1; the others as `mamba_step`'s.
    """
    fields = (
        *place(x)[:2], *place(z)[:2], *place(conv_state), *place(state)[:3], *place(conv_weight), address(conv_bias),
        x_weight.data_ptr(), dt_weight.data_ptr(), dt_bias.data_ptr(), *place(A_log)[:2], D.data_ptr(), y.data_ptr(),
        x.shape[1], A_log.shape[1], dt_weight.shape[1], conv_weight.shape[1],
    )  # fmt: skip
    tags = (element_of(x.dtype), element_of(A_log.dtype), element_of(state.dtype))
    return step_kernel.job(tags, x.shape[0], fields)
