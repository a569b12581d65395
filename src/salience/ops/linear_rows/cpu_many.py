"""The CPU kernels of a linear layer on many rows, in float32: for machines whose BLAS leaves much of them unused.

MKL reaches 67 to 78 GFLOP/s a core of a Zen 3 whose multiply-adds come to 89, oneDNN 72 to 74; this comes to 78 to 83.
And what surrounds the product costs no pass of its own, and wakes none of torch's threads, which go on spinning beside
the kernel that comes next: an RMS norm of what goes in, adding to what is there, results on pages that were touched.

x is laid out anew, [panel of 16 rows][k][row], once for all outputs. A vector is then one k of 16 rows, and a tile of
16 rows and 6 outputs is 12 registers; the weights are read where they lie, each number into all lanes. Sums are held
[output][row] for a block of 48 outputs and 128 rows, DEPTH products at a time, so that a panel's part and the 6 rows of
weights stay in the nearest cache and the block's parts in the next; in the end they are turned into y. Each output's
sum has one order, whatever the threads and the other rows are.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from llvmlite import binding
from torch import Tensor

from salience.ops.simd import (
    F32,
    empty,
    features,
    fma,
    horizontal_sum,
    inline,
    kernel,
    load,
    load_n,
    load_scalar,
    load_splat,
    splat,
    store,
    store_n,
    store_scalar,
    turn8,
    turn8_onto,
)

S = 4  # bytes of a number
PANEL = 16  # rows of x side by side: a vector
TILE = 6  # outputs at once
OUTPUTS, ROWS = 48, 128  # of a block
DEPTH = 256
STEP = PANEL * S  # bytes from one k of a panel to the next
SUMS = (ROWS + PANEL) * S  # bytes from one output's sums to the next: no power of two, whose lines would share sets
AT_ONCE = 1024  # rows of x laid out anew at a time: what they take is held while the product runs
FEW_BLOCKS = 16  # a thread: below it the rows are shared out too
MOST_THREADS = 4  # measured with one and two: with many more, threads that share one interpreter would wait for it

PACK = np.dtype([*((name, "i8") for name in ("x", "x_step", "rows", "n", "norm", "packed")), ("eps", "f8")])
MULTIPLY = np.dtype(
    [(name, "i8") for name in ("packed", "rows", "n", "w", "w_step", "outputs", "bias", "y", "y_step", "add")]
    + [(name, "i8") for name in ("blocks", "span")]
)


def worth() -> bool:
    """Whether this is a machine where the kernels were measured to be faster: AMD before AVX-512, torch with MKL."""
    return _slow_blas() and torch.get_num_threads() <= MOST_THREADS


@cache
def _slow_blas() -> bool:
    amd = binding.get_host_cpu_name().startswith("znver") and features() >= {"avx2", "fma"}
    return amd and "avx512f" not in features() and torch.backends.mkl.is_available()


@inline
def normalise(tag, p, source, rows, target):
    """x / rms(x) * norm of each row -> rows one after another."""
    for r in range(rows):
        x, out, total = source + r * p.x_step, target + r * p.n * S, splat(tag, 0.0)
        for i in range(0, p.n, PANEL):
            v = load_n(tag, x + i * S, p.n - i)
            total = fma(v, v, total)
        factor = splat(tag, 1.0 / np.sqrt(horizontal_sum(total) / p.n + p.eps))
        for i in range(0, p.n, PANEL):
            rest = p.n - i
            value = load_n(tag, x + i * S, rest) * factor * load_n(tag, p.norm + i * S, rest)
            store_n(tag, out + i * S, value, rest)


@inline
def lay_out(tag, source, step, rows, n, target):
    """`rows` rows of n numbers -> a panel, zeros for the rows that are not there."""
    for half in range(0, PANEL, 8):
        k = 0
        while half + 8 <= rows and k + 8 <= n:
            turn8(source + half * step + k * S, step, target + k * STEP + half * S, STEP)
            k += 8
        for j in range(k, n):
            for r in range(half, half + 8):
                value = np.float32(0)
                if r < rows:
                    value = load_scalar(tag, source + r * step + j * S)
                store_scalar(tag, target + j * STEP + r * S, value)


@kernel(PACK)
def pack_kernel(tag, params, task):
    """A panel."""
    p = params[0]
    first = task * PANEL
    rows = min(PANEL, p.rows - first)
    source, step = p.x + first * p.x_step, p.x_step
    scratch = np.empty(PANEL * p.n if p.norm != 0 else 1, np.float32)
    if p.norm != 0:
        normalise(tag, p, source, rows, scratch.ctypes.data)
        source, step = scratch.ctypes.data, p.n * S
    lay_out(tag, source, step, rows, p.n, p.packed + task * p.n * STEP)
    scratch[0] = 0  # keeps it alive until here


@inline
def tile(tag, x, w, n, sums):
    """n more products onto the sums of 6 outputs and 16 rows. w: where the 6 rows of weights begin."""
    w0, w1, w2, w3, w4, w5 = w
    a0 = splat(tag, 0.0)
    a1, a2, a3, a4, a5 = a0, a0, a0, a0, a0
    for k in range(n):
        v, i = load(tag, x + k * STEP), k * S
        a0, a1 = fma(load_splat(tag, w0 + i), v, a0), fma(load_splat(tag, w1 + i), v, a1)
        a2, a3 = fma(load_splat(tag, w2 + i), v, a2), fma(load_splat(tag, w3 + i), v, a3)
        a4, a5 = fma(load_splat(tag, w4 + i), v, a4), fma(load_splat(tag, w5 + i), v, a5)
    # short sums added to a long one: a third of the rounding of one long chain of 768
    store(tag, sums, load(tag, sums) + a0)
    store(tag, sums + SUMS, load(tag, sums + SUMS) + a1)
    store(tag, sums + 2 * SUMS, load(tag, sums + 2 * SUMS) + a2)
    store(tag, sums + 3 * SUMS, load(tag, sums + 3 * SUMS) + a3)
    store(tag, sums + 4 * SUMS, load(tag, sums + 4 * SUMS) + a4)
    store(tag, sums + 5 * SUMS, load(tag, sums + 5 * SUMS) + a5)


@inline
def leave(tag, p, sums, rows, outputs, y):
    """A block's sums -> y, or onto what is there."""
    for r in range(0, rows, 8):
        o = 0
        while r + 8 <= rows and o + 8 <= outputs:
            if p.add != 0:
                turn8_onto(sums + o * SUMS + r * S, SUMS, y + r * p.y_step + o * S, p.y_step)
            else:
                turn8(sums + o * SUMS + r * S, SUMS, y + r * p.y_step + o * S, p.y_step)
            o += 8
        for i in range(r, min(r + 8, rows)):
            for j in range(o, outputs):
                to, value = y + i * p.y_step + j * S, load_scalar(tag, sums + j * SUMS + i * S)
                if p.add != 0:
                    value += load_scalar(tag, to)
                store_scalar(tag, to, value)


@kernel(MULTIPLY)
def multiply_kernel(tag, params, task):
    """A block of outputs, for `span` rows."""
    p = params[0]
    scratch = np.empty(OUTPUTS * SUMS + 64, np.uint8)
    sums = (scratch.ctypes.data + 63) // 64 * 64
    o, part, last = task % p.blocks * OUTPUTS, task // p.blocks, p.outputs - 1
    outputs = min(OUTPUTS, p.outputs - o)
    for m in range(part * p.span, min((part + 1) * p.span, p.rows), ROWS):
        rows = min(ROWS, p.rows - m)
        for j in range(OUTPUTS):
            start = splat(tag, 0.0)
            if p.bias != 0:
                start = load_splat(tag, p.bias + min(o + j, last) * S)
            for i in range(0, rows, PANEL):
                store(tag, sums + j * SUMS + i * S, start)
        for k in range(0, p.n, DEPTH):
            n, at = min(DEPTH, p.n - k), p.w + k * S
            for j in range(0, outputs, TILE):
                # past the end the last output again, whose sums nobody looks at
                w0, w1 = at + (o + j) * p.w_step, at + min(o + j + 1, last) * p.w_step
                w2, w3 = at + min(o + j + 2, last) * p.w_step, at + min(o + j + 3, last) * p.w_step
                w4, w5 = at + min(o + j + 4, last) * p.w_step, at + min(o + j + 5, last) * p.w_step
                for i in range(0, rows, PANEL):
                    x = p.packed + ((m + i) // PANEL * p.n + k) * STEP
                    tile(tag, x, (w0, w1, w2, w3, w4, w5), n, sums + j * SUMS + i * S)
        leave(tag, p, sums, rows, outputs, p.y + m * p.y_step + o * S)
    scratch[0] = 0  # keeps it alive until here


def packed_size(rows: int, n: int) -> int:
    """How many numbers `product` lays x (rows, n) out in."""
    return -(-min(rows, AT_ONCE) // PANEL) * PANEL * n


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, y: Tensor | None = None, add: bool = False,
            norm: Tensor | None = None, eps: float = 0.0, packed: Tensor | None = None) -> Tensor:  # fmt: skip
    """x weight^T + bias into y; without gradients, all float32, the last axis of each side by side.

    Args:    x: (M, K)   weight: (O, K)   bias: (O,)   y: (M, O), made where it is None   add: y += x weight^T + bias
             norm: (K,), the weight of an RMS norm of x, with its eps   packed: scratch of `packed_size`
    Returns: y
    """
    (rows, n), outputs, threads = x.shape, weight.shape[0], torch.get_num_threads()
    if y is None:
        y = empty(rows, outputs)
    if packed is None:
        packed = empty(packed_size(rows, n))
    bias_at, norm_at = (0 if each is None else each.data_ptr() for each in (bias, norm))
    blocks = -(-outputs // OUTPUTS)
    for first in range(0, rows, AT_ONCE):
        count = min(AT_ONCE, rows - first)
        source, target = x.data_ptr() + first * x.stride(0) * S, y.data_ptr() + first * y.stride(0) * S
        fields = (source, x.stride(0) * S, count, n, norm_at, packed.data_ptr(), eps)
        pack_kernel.job((F32,), -(-count // PANEL), fields).run()
        parts = 1 if blocks >= FEW_BLOCKS * threads else -(-count // ROWS)
        span = -(-count // (parts * ROWS)) * ROWS
        held = (packed.data_ptr(), count, n, weight.data_ptr(), weight.stride(0) * S, outputs, bias_at)
        multiply_kernel.job((F32,), blocks * parts, (*held, target, y.stride(0) * S, add, blocks, span)).run()
    return y
