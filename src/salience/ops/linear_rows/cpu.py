"""The CPU kernel of a linear layer on a few rows: four outputs at a time, their weights from memory for the first row
and from the nearest cache for the others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from salience.ops.simd import (
    element_of,
    fma,
    horizontal_sum,
    inline,
    kernel,
    lanes,
    load,
    load_n,
    load_scalar,
    parallel_for,
    size,
    splat,
    store_scalar,
)

PARAMS = np.dtype([(name, "i8") for name in ("x", "w", "bias", "y", "rows", "n", "outputs", "block")])
WORTH_A_THREAD = 1 << 20  # bytes of weights: fewer are read before another thread has woken up


@inline
def dot4(tag, x, w, step, n):
    """Four products of x with rows of w that lie `step` bytes apart."""
    a0, a1, a2, a3 = splat(tag, 0.0), splat(tag, 0.0), splat(tag, 0.0), splat(tag, 0.0)
    s, whole = size(tag), n // lanes(tag) * lanes(tag)
    for i in range(0, whole, lanes(tag)):
        v, at = load(tag, x + i * s), w + i * s
        a0, a1 = fma(load(tag, at), v, a0), fma(load(tag, at + step), v, a1)
        a2, a3 = fma(load(tag, at + 2 * step), v, a2), fma(load(tag, at + 3 * step), v, a3)
    if whole < n:
        v, at, rest = load_n(tag, x + whole * s, n - whole), w + whole * s, n - whole
        a0, a1 = fma(load_n(tag, at, rest), v, a0), fma(load_n(tag, at + step, rest), v, a1)
        a2, a3 = fma(load_n(tag, at + 2 * step, rest), v, a2), fma(load_n(tag, at + 3 * step, rest), v, a3)
    return horizontal_sum(a0), horizontal_sum(a1), horizontal_sum(a2), horizontal_sum(a3)


@inline
def put(tag, p, row, output, value):
    """One output, with its bias."""
    if p.bias != 0:
        value += load_scalar(tag, p.bias + output * size(tag))
    store_scalar(tag, p.y + (row * p.outputs + output) * size(tag), value)


@kernel(PARAMS)
def linear_kernel(tag, params, task):
    """A block of outputs, for all rows."""
    p = params[0]
    step = p.n * size(tag)
    end = min((task + 1) * p.block, p.outputs)
    for o in range(task * p.block, end, 4):
        for row in range(p.rows):
            x, w = p.x + row * step, p.w + o * step
            if o + 4 <= end:
                d0, d1, d2, d3 = dot4(tag, x, w, step, p.n)
                put(tag, p, row, o, d0)
                put(tag, p, row, o + 1, d1)
                put(tag, p, row, o + 2, d2)
                put(tag, p, row, o + 3, d3)
            else:
                for k in range(o, end):  # the same sum, four times: the last few outputs are not worth more code
                    put(tag, p, row, k, dot4(tag, x, p.w + k * step, 0, p.n)[0])


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, K), weight (O, K) with its rows one after another, bias (O,) -> (B, O), all of one dtype."""
    x = x.contiguous()
    bias = None if bias is None else bias.contiguous()
    rows, n, outputs, element = x.shape[0], x.shape[1], weight.shape[0], element_of(x.dtype)
    y = torch.empty(rows, outputs, dtype=x.dtype)
    tasks = 1 if outputs * n * element.size < WORTH_A_THREAD else torch.get_num_threads()
    block = -(-outputs // (4 * tasks)) * 4
    bias_at = 0 if bias is None else bias.data_ptr()
    fields = (x.data_ptr(), weight.data_ptr(), bias_at, y.data_ptr(), rows, n, outputs, block)
    params = np.array([fields], PARAMS)
    parallel_for(linear_kernel.compiled(element), -(-outputs // block), element, params)
    return y
