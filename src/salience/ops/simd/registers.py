"""Sizes of an element tag's vectors, as constants in kernels; vectors of one register."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from salience.ops.simd.element import Element
from salience.ops.simd.lower import I64, has


@cache
def native(element: Element) -> Element:
    """The element type with vectors of one register: 64 bytes with AVX-512, else 32.

    For kernels that keep more values than 16 pairs of registers hold.
    """
    return element if has(cpu_target.target_context, "avx512f") else element.halved()


def _constant(name: str, value: Callable[[Element], int], doc: str) -> Any:
    """An intrinsic of a tag -> int64, known at compile time."""

    def typer(typingctx: Any, tag: Any) -> Any:
        return types.int64(tag), lambda context, b, sig, args: ir.Constant(I64, value(tag.element))

    typer.__name__ = typer.__qualname__ = name
    typer.__doc__ = doc
    return intrinsic(typer)


lanes = _constant("lanes", lambda element: element.lanes, "Values in a vector of the compute type.")
size = _constant("size", lambda element: element.size, "Bytes of one stored element.")
compute_size = _constant("compute_size", lambda element: element.compute_size, "Bytes of one value, 4 or 8.")
vector_size = _constant("vector_size", lambda e: e.lanes * e.compute_size, "Bytes of a vector of the compute type.")
