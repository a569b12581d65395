"""One decoding step of the causal convolution on a CPU. The state is updated in place."""

from __future__ import annotations

import numpy as np

from salience.ops.simd.arithmetic import fma, sigmoid, splat
from salience.ops.simd.inlined import load_strided
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import copy_strided, load_n, store_n
from salience.ops.simd.registers import compute_size, lanes, size

STEP = np.dtype(
    [(name, "i8") for name in ("state", "state_b", "state_w", "state_d", "x", "x_b", "x_d", "weight", "weight_d")]
    + [(name, "i8") for name in ("weight_k", "bias", "y", "batch", "rows", "D", "W", "silu")]
)


@inline
def read_taps(ptag, weight, weight_d, weight_k, width, n, taps):
    """The weights of n channels -> a row of 64 bytes for each tap."""
    for k in range(width):
        copy_strided(ptag, weight + k * weight_k, weight_d, taps + k * 64, size(ptag), n)


@inline
def convolve(tag, ptag, x, x_d, state, state_w, state_d, taps, width, bias, n, raw):
    """One vector of channels: bias + weight . [state, x]; then the state drops its oldest row."""
    value = fma(load_n(ptag, taps + (width - 1) * 64, n), load_strided(tag, x, x_d, n, raw), bias)
    for k in range(width - 1):
        row = state + k * state_w
        value = fma(load_n(ptag, taps + k * 64, n), load_strided(tag, row, state_d, n, raw), value)
        if k > 0:
            copy_strided(tag, row, state_d, row - state_w, state_d, n)
    copy_strided(tag, x, x_d, state + (width - 2) * state_w, state_d, n)
    return value


@kernel(STEP)
def step_kernel(tag, ctag, params, task):
    """Some rows of the batch: y = silu(bias + weight . [state, x])."""
    p = params[0]
    s, cs, N = size(tag), compute_size(ctag), lanes(tag)
    scratch = np.empty(9 * 64, np.uint8)
    taps, raw = scratch.ctypes.data, scratch.ctypes.data + 8 * 64
    for c in range(0, p.D, N):
        n = min(N, p.D - c)
        bias = load_n(ctag, p.bias + c * cs, n) if p.bias != 0 else splat(ctag, 0.0)
        read_taps(ctag, p.weight + c * p.weight_d, p.weight_d, p.weight_k, p.W, n, taps)
        for b in range(task * p.rows, min((task + 1) * p.rows, p.batch)):
            x, state = p.x + b * p.x_b + c * p.x_d, p.state + b * p.state_b + c * p.state_d
            value = convolve(tag, ctag, x, p.x_d, state, p.state_w, p.state_d, taps, p.W, bias, n, raw)
            if p.silu != 0:
                value = value * sigmoid(value)
            store_n(tag, p.y + (b * p.D + c) * s, value, n)
    scratch[0] = 0  # keeps it alive until here
