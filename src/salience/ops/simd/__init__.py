"""Explicit SIMD for numba: vectors as values in kernels written in Python, a thread pool, a cache on disk.

Importing this package loads numba (about 0.3 s): do it inside the function that needs a kernel.

A kernel is a function of element tags, a parameter record and a task number. A tag (`F32`, `BF16` ...) is the type in
memory. It fixes the compute type: 16 lanes of float32, or 8 of float64. Addresses are plain int64 byte addresses.

    import numpy as np
    from salience.ops import simd

    PARAMS = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8")])

    @simd.kernel(PARAMS)
    def silu(tag, params, task):                       # y = x * sigmoid(x), 4096 elements a task
        p = params[0]
        end = min((task + 1) * 4096, p.n)
        for i in range(task * 4096, end, simd.lanes(tag)):
            x = simd.load_n(tag, p.x + i * simd.size(tag), end - i)      # zeros behind the end
            simd.store_n(tag, p.y + i * simd.size(tag), x * simd.sigmoid(x), end - i)

    def run(x):                                        # a contiguous tensor
        y, element = torch.empty_like(x), simd.element_of(x.dtype)
        silu.job((element,), -(-x.numel() // 4096), (x.data_ptr(), y.data_ptr(), x.numel())).run()
        return y

- vectors: `+ - * /` (and `+=` ...), `fma`, `maximum`, `minimum`, `exp2`, `sigmoid`, `softplus`, `splat(tag, number)`,
  `horizontal_sum`, `fold4` with `store4` (four sums at once). No comparisons: a mask is a shorter list of rows.
- memory: `load`, `store` (a whole vector, any alignment), `load_n`, `store_n` (tails), `load_splat` (one element in all
  lanes), `load_scalar`, `store_scalar`, `copy_strided`, `load_byte`; all but the last two convert, to nearest even.
- `@simd.inline` marks a helper that a kernel calls; vectors may be its arguments and results.
- Loops that carry several vectors run from registers: keep four independent chains, four cycles are an fma's latency.
- The cache's key has the hash of `ops/simd/*.py`, `ops/*/cpu*.py`, `ops/constants.py`, `ops/segment_codes.py` and the
  file the kernel is in: helpers belong into these.
"""

from salience.ops.simd.arithmetic import (
    add4,
    exp2,
    exp2_range,
    exp2_within,
    fma,
    fold4,
    horizontal_maximum,
    horizontal_sum,
    magnitude,
    maximum,
    minimum,
    sigmoid,
    silu_for_halves,
    softplus,
    store4,
)
from salience.ops.simd.element import BF16, F16, F32, F64, Element, compute_dtype, element_of
from salience.ops.simd.kernel import Kernel, inline, kernel
from salience.ops.simd.load_store import (
    compute_size,
    copy_strided,
    count_up,
    lanes,
    load,
    load_byte,
    load_n,
    load_scalar,
    load_splat,
    prefetch,
    size,
    splat,
    store,
    store_n,
    store_scalar,
    vector_size,
)
from salience.ops.simd.pool import KernelJob
from salience.ops.simd.registers import features, native

__all__ = [
    "BF16",
    "F16",
    "F32",
    "F64",
    "Element",
    "Kernel",
    "KernelJob",
    "add4",
    "compute_dtype",
    "compute_size",
    "copy_strided",
    "count_up",
    "element_of",
    "exp2",
    "exp2_range",
    "exp2_within",
    "features",
    "fma",
    "fold4",
    "horizontal_maximum",
    "horizontal_sum",
    "inline",
    "kernel",
    "lanes",
    "load",
    "load_byte",
    "load_n",
    "load_scalar",
    "load_splat",
    "magnitude",
    "maximum",
    "minimum",
    "native",
    "prefetch",
    "sigmoid",
    "silu_for_halves",
    "size",
    "softplus",
    "splat",
    "store",
    "store4",
    "store_n",
    "store_scalar",
    "vector_size",
]
