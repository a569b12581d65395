"""Small helpers of several kernels."""

from __future__ import annotations

from salience.ops.simd.arithmetic import splat
from salience.ops.simd.kernel import inline
from salience.ops.simd.load_store import copy_strided, load_n, store
from salience.ops.simd.registers import size, vector_size


@inline
def aligned(address):
    """The next multiple of 64 bytes."""
    return (address + 63) // 64 * 64


@inline
def clear(ctag, address, rows):
    """Fill `rows` rows of a vector with zeros."""
    zero = splat(ctag, 0.0)
    for i in range(rows):
        store(ctag, address + i * vector_size(ctag), zero)


@inline
def load_strided(tag, source, stride, n, raw):
    """Load the first n elements with any stride; `raw` is scratch of a vector."""
    if stride != size(tag):
        copy_strided(tag, source, stride, raw, size(tag), n)
        source = raw
    return load_n(tag, source, n)
