"""The CPU kernel of a linear layer on a few rows: four outputs at a time, their weights from memory for the first row
and from the nearest cache for the others.

The four are far apart, so that each thread reads four streams, every one without a break over row after row of the
weights: 21 GB/s on two cores of a Zen 3 whose single stream a core gives 15, and whose memory gives no more.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from salience.ops.simd.arithmetic import fma, fold4, horizontal_sum, splat, store4
from salience.ops.simd.element import F32, F64, element_of
from salience.ops.simd.kernel import inline, kernel
from salience.ops.simd.load_store import load, load_n, load_scalar, store_n, store_scalar
from salience.ops.simd.pool import KernelJob
from salience.ops.simd.registers import compute_size, lanes, size

FIELDS = [(name, "i8") for name in ("x", "w", "bias", "y", "rows", "n", "outputs", "block", "norm", "add")]
PARAMS = np.dtype([*FIELDS, ("eps", "f8")])
WORTH_A_THREAD = 1 << 20  # bytes of weights: fewer are read before another thread has woken up
TASKS_A_THREAD = 2  # so that a thread that wakes up late leaves its last share to the others


@inline
def dot4(tag, xtag, x, w0, w1, w2, w3, n):
    """Four products of x with rows of weights, in the lanes of `fold4`."""
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
def normalise(tag, ctag, p, x, out):
    """x / rms(x) * norm -> out, both in the compute type."""
    cs, total = compute_size(ctag), splat(ctag, 0.0)
    for i in range(0, p.n, lanes(ctag)):
        v = load_n(ctag, x + i * cs, p.n - i)
        total = fma(v, v, total)
    factor = splat(ctag, 1.0 / np.sqrt(horizontal_sum(total) / p.n + p.eps))
    for i in range(0, p.n, lanes(ctag)):
        rest = p.n - i
        store_n(
            ctag,
            out + i * cs,
            load_n(ctag, x + i * cs, rest) * factor * load_n(tag, p.norm + i * size(tag), rest),
            rest,
        )


@inline
def put(tag, ytag, p, row, output, value):
    """Store one output with its bias, or add it to the value in y."""
    to = p.y + (row * p.outputs + output) * size(ytag)
    if p.bias != 0:
        value += load_scalar(tag, p.bias + output * size(tag))
    if p.add != 0:
        value += load_scalar(ytag, to)
    store_scalar(ytag, to, value)


@kernel(PARAMS)
def linear_kernel(tag, xtag, ytag, ctag, params, task):
    """A block of outputs, for all rows. Weights, bias and norm are of `tag`; where there is a norm xtag is ctag."""
    p = params[0]
    cs, step, x_step = compute_size(ctag), p.n * size(tag), p.n * size(xtag)
    scratch = np.empty(64 + (p.rows * x_step if p.norm != 0 else 0), np.uint8)
    sums, x = scratch.ctypes.data, p.x
    if p.norm != 0:
        x = sums + 64
        for row in range(p.rows):
            normalise(tag, ctag, p, p.x + row * x_step, x + row * x_step)
    first, end = task * p.block, min((task + 1) * p.block, p.outputs)
    apart, last = (end - first + 3) // 4, end - 1
    for o0 in range(first, first + apart):
        # where a block is no multiple of four, those past its end are the last one again, and not put
        o1, o2, o3 = o0 + apart, o0 + 2 * apart, o0 + 3 * apart
        w0, w1 = p.w + o0 * step, p.w + min(o1, last) * step
        w2, w3 = p.w + min(o2, last) * step, p.w + min(o3, last) * step
        for row in range(p.rows):
            store4(sums, dot4(tag, xtag, x + row * x_step, w0, w1, w2, w3, p.n))
            put(tag, ytag, p, row, o0, load_scalar(ctag, sums))
            if o1 < end:
                put(tag, ytag, p, row, o1, load_scalar(ctag, sums + cs))
            if o2 < end:
                put(tag, ytag, p, row, o2, load_scalar(ctag, sums + 2 * cs))
            if o3 < end:
                put(tag, ytag, p, row, o3, load_scalar(ctag, sums + 3 * cs))
    scratch[0] = 0  # keeps it alive until here


def call(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, *, norm: Tensor | None = None, eps: float = 0.0,
         add: bool = False) -> KernelJob:  # fmt: skip
    """y = W x + bias as a job, all contiguous. It holds addresses: the caller keeps the tensors alive.

    Args:    x: (B, K)   weight: (O, K)   bias: (O,)   y: (B, O), of any floating dtype   norm: (K,), the weight of an
             RMS norm of x, which then is in the compute dtype   add: y += W x + bias
    """
    rows, n, outputs, element = x.shape[0], x.shape[1], weight.shape[0], element_of(weight.dtype)
    tasks = 1 if outputs * n * element.size < WORTH_A_THREAD else TASKS_A_THREAD * torch.get_num_threads()
    block = -(-outputs // (4 * tasks)) * 4
    bias_at, norm_at = (0 if each is None else each.data_ptr() for each in (bias, norm))
    fields = (x.data_ptr(), weight.data_ptr(), bias_at, y.data_ptr(), rows, n, outputs, block, norm_at, add, eps)
    compute = F64 if element.compute == "f64" else F32
    tags = (element, element_of(x.dtype), element_of(y.dtype), compute)
    return linear_kernel.job(tags, -(-outputs // block), fields)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, K), weight (O, K) with its rows one after another, bias (O,) -> (B, O), all of one dtype."""
    x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    y = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype)
    call(x, weight, bias, y).run()
    return y
