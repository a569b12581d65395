"""Explicit SIMD for numba: vectors as values in kernels written in Python, a thread pool, a cache on disk.

Importing a module with a kernel loads numba (about 0.3 s): do it inside the function that needs the kernel.

A kernel is a function of element tags, a parameter record and a task number. A tag (`F32`, `BF16` ...) is the type in
memory. It fixes the compute type: 16 lanes of float32, or 8 of float64. Addresses are plain int64 byte addresses.

    from salience.ops.simd.arithmetic import sigmoid
    from salience.ops.simd.element import element_of
    from salience.ops.simd.kernel import kernel
    from salience.ops.simd.load_store import load_n, store_n
    from salience.ops.simd.registers import lanes, size

    PARAMS = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8")])

    @kernel(PARAMS)
    def silu(tag, params, task):                       # y = x * sigmoid(x), 4096 elements a task
        p = params[0]
        end = min((task + 1) * 4096, p.n)
        for i in range(task * 4096, end, lanes(tag)):
            x = load_n(tag, p.x + i * size(tag), end - i)      # zeros behind the end
            store_n(tag, p.y + i * size(tag), x * sigmoid(x), end - i)

    def run(x):                                        # a contiguous tensor
        y, element = torch.empty_like(x), element_of(x.dtype)
        silu.job((element,), -(-x.numel() // 4096), (x.data_ptr(), y.data_ptr(), x.numel())).run()
        return y

- vectors: `+ - * /` (and `+=` ...), `fma`, `maximum`, `exp2`, `sigmoid`, `softplus`, `splat(tag, number)`,
  `horizontal_sum`, `fold4` with `store4` (four sums at once). No comparisons: a mask is a shorter list of rows.
- memory: `load`, `store` (a whole vector, any alignment), `load_n`, `store_n` (tails), `load_splat` (one element in all
  lanes), `load_scalar`, `store_scalar`, `copy_strided`, `load_byte`; all but the last two convert, to nearest even.
- `@inline` marks a helper that a kernel calls; vectors may be its arguments and results.
- Loops that carry several vectors run from registers: keep four independent chains, four cycles are an fma's latency.
- The cache's key has the hash of `ops/simd/*.py`, `ops/*/cpu*.py`, `ops/constants.py`, `ops/segment_codes.py` and the
  file the kernel is in: helpers belong into these.
"""
