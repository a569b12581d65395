"""Two small kernels for the tests: a function of one vector, and x times the first element."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from salience.ops.simd.arithmetic import exp2, exp2_within, sigmoid, silu_for_halves, softplus
from salience.ops.simd.element import Element, element_of
from salience.ops.simd.kernel import kernel
from salience.ops.simd.load_store import load_n, load_splat, store_n
from salience.ops.simd.registers import lanes, size

PARAMS = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8"), ("kind", "i8")])
KINDS = ("copy", "exp2", "softplus", "sigmoid", "scale", "exp2_within", "silu_for_halves")
CHUNK = 1000  # of no multiple of a vector: every task has a tail


@kernel(PARAMS)
def apply_kernel(tag, params, task):
    p = params[0]
    end = min((task + 1) * CHUNK, p.n)
    step = size(tag)
    for i in range(task * CHUNK, end, lanes(tag)):
        x = load_n(tag, p.x + i * step, end - i)
        y = x
        if p.kind == 1:
            y = exp2(x)
        elif p.kind == 2:
            y = softplus(x)
        elif p.kind == 3:
            y = sigmoid(x)
        elif p.kind == 4:
            y = load_splat(tag, p.x) * x
        elif p.kind == 5:
            y = exp2_within(x)
        elif p.kind == 6:
            y = silu_for_halves(x)
        store_n(tag, p.y + i * step, y, end - i)


def apply(kind: str, x: Tensor, threads: int | None = None, element: Element | None = None) -> Tensor:
    """The function called `kind` of every element of a contiguous tensor; the output was full of NaN."""
    y, element = torch.full_like(x, torch.nan), element or element_of(x.dtype)
    fields = (x.data_ptr(), y.data_ptr(), x.numel(), KINDS.index(kind))
    apply_kernel.job((element,), -(-x.numel() // CHUNK), fields).run(threads)
    return y
