"""The CPU kernel of a linear layer on a few rows: four outputs at a time, their weights from memory for the first row
and from the nearest cache for the others.

The four are far apart, so that each thread reads four streams, every one without a break over row after row of the
weights: 21 GB/s on two cores of a Zen 3 whose single stream a core gives 15, and whose memory gives no more.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from salience.ops.simd import (
    F32,
    F64,
    compute_dtype,
    compute_size,
    element_of,
    fma,
    fold4,
    inline,
    kernel,
    lanes,
    load,
    load_n,
    load_scalar,
    parallel_for,
    size,
    splat,
    store4,
    store_scalar,
)

PARAMS = np.dtype([(name, "i8") for name in ("x", "w", "bias", "y", "rows", "n", "outputs", "block")])
WORTH_A_THREAD = 1 << 20  # bytes of weights: fewer are read before another thread has woken up
TASKS_A_THREAD = 2  # so that a thread that wakes up late leaves its last share to the others


@inline
def dot4(tag, xtag, x, w0, w1, w2, w3, n):
    """Four products of x with rows of weights, as `fold4` leaves them."""
    a0 = splat(xtag, 0.0)
    a1, a2, a3 = a0, a0, a0
    s, whole = size(tag), n // lanes(tag) * lanes(tag)
    for i in range(0, whole, lanes(tag)):
        v, at = load(xtag, x + i * size(xtag)), i * s
        a0, a1 = fma(load(tag, w0 + at), v, a0), fma(load(tag, w1 + at), v, a1)
        a2, a3 = fma(load(tag, w2 + at), v, a2), fma(load(tag, w3 + at), v, a3)
    if whole < n:
        at, rest = whole * s, n - whole
        v = load_n(xtag, x + whole * size(xtag), rest)
        a0, a1 = fma(load_n(tag, w0 + at, rest), v, a0), fma(load_n(tag, w1 + at, rest), v, a1)
        a2, a3 = fma(load_n(tag, w2 + at, rest), v, a2), fma(load_n(tag, w3 + at, rest), v, a3)
    return fold4(a0, a1, a2, a3)


@inline
def put(tag, p, row, output, value):
    """One output, with its bias."""
    if p.bias != 0:
        value += load_scalar(tag, p.bias + output * size(tag))
    store_scalar(tag, p.y + (row * p.outputs + output) * size(tag), value)


@kernel(PARAMS)
def linear_kernel(tag, ctag, params, task):
    """A block of outputs, for all rows."""
    p = params[0]
    scratch = np.empty(64, np.uint8)
    sums, cs, step = scratch.ctypes.data, compute_size(ctag), p.n * size(tag)
    first, end = task * p.block, min((task + 1) * p.block, p.outputs)
    apart, last = (end - first + 3) // 4, end - 1
    for o0 in range(first, first + apart):
        # where a block is no multiple of four, some at its end are done twice
        o1, o2, o3 = min(o0 + apart, last), min(o0 + 2 * apart, last), min(o0 + 3 * apart, last)
        w0, w1, w2, w3 = p.w + o0 * step, p.w + o1 * step, p.w + o2 * step, p.w + o3 * step
        for row in range(p.rows):
            store4(sums, dot4(tag, tag, p.x + row * step, w0, w1, w2, w3, p.n))
            put(tag, p, row, o0, load_scalar(ctag, sums))
            put(tag, p, row, o1, load_scalar(ctag, sums + cs))
            put(tag, p, row, o2, load_scalar(ctag, sums + 2 * cs))
            put(tag, p, row, o3, load_scalar(ctag, sums + 3 * cs))
    scratch[0] = 0  # keeps it alive until here


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, K), weight (O, K) with its rows one after another, bias (O,) -> (B, O), all of one dtype."""
    x = x.contiguous()
    bias = None if bias is None else bias.contiguous()
    rows, n, outputs, element = x.shape[0], x.shape[1], weight.shape[0], element_of(x.dtype)
    y = torch.empty(rows, outputs, dtype=x.dtype)
    tasks = 1 if outputs * n * element.size < WORTH_A_THREAD else TASKS_A_THREAD * torch.get_num_threads()
    block = -(-outputs // (4 * tasks)) * 4
    bias_at = 0 if bias is None else bias.data_ptr()
    fields = (x.data_ptr(), weight.data_ptr(), bias_at, y.data_ptr(), rows, n, outputs, block)
    params, tags = np.array([fields], PARAMS), (element, F64 if compute_dtype(x.dtype) == torch.float64 else F32)
    parallel_for(linear_kernel.compiled(*tags), -(-outputs // block), *tags, params)
    return y
