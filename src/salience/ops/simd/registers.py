"""Vectors of one register, for kernels that keep more values than 16 pairs of registers hold."""

from __future__ import annotations

from functools import cache

from numba.core.registry import cpu_target

from salience.ops.simd.element import Element


@cache
def features() -> frozenset[str]:
    """Features of the machine compiled for ("avx2", "avx512f" ...): numba's choice, NUMBA_CPU_* included."""
    told = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return frozenset(each[1:] for each in told if each.startswith("+"))


@cache
def native(element: Element) -> Element:
    """The element type with vectors of one register: 64 bytes with AVX-512, else 32."""
    return element if "avx512f" in features() else element.halved()
