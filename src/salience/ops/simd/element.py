"""Element types of kernels (the stored type, the compute type, the length of a vector), and their types in numba.

numba gets two types: `Element` objects as compile-time tags, and vectors held in registers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import models, register_model, typeof_impl


@dataclass(frozen=True, kw_only=True)
class Element:
    """An element type: a kernel's compile-time argument.

    name: as in a kernel's signature.   size: bytes in memory.   compute: "f32" or "f64", the type in registers.
    lanes: values in a vector, 64 bytes of the compute type (LLVM splits it where registers are shorter).
    """

    name: str
    size: int
    compute: str
    lanes: int

    @property
    def compute_size(self) -> int:
        """Bytes of a value of the compute type."""
        return 8 if self.compute == "f64" else 4

    def halved(self) -> Element:
        """The same with vectors half as long."""
        return replace(self, lanes=self.lanes // 2)


F32 = Element(name="f32", size=4, compute="f32", lanes=16)
F64 = Element(name="f64", size=8, compute="f64", lanes=8)
BF16 = Element(name="bf16", size=2, compute="f32", lanes=16)
F16 = Element(name="f16", size=2, compute="f32", lanes=16)

ELEMENTS = {torch.float32: F32, torch.float64: F64, torch.bfloat16: BF16, torch.float16: F16}


def element_of(dtype: torch.dtype) -> Element:
    """The element type of a floating dtype; ValueError for one that no kernel computes with."""
    if dtype not in ELEMENTS:
        raise ValueError(f"dtype: {dtype}; the CPU kernels take float32, float64, bfloat16 and float16")
    return ELEMENTS[dtype]


SCALARS = {"f32": (types.float32, ir.FloatType()), "f64": (types.float64, ir.DoubleType())}


class ElementType(types.Type):
    """The type of an Element: it has no runtime value, the code is specialised on it."""

    def __init__(self, element: Element) -> None:
        self.element = element
        super().__init__(name=f"element_{element.lanes}x{element.name}")


class VectorType(types.Type):
    """`lanes` values of "f32" or "f64" in one or more vector registers: an LLVM vector."""

    def __init__(self, compute: str, lanes: int) -> None:
        self.compute, self.lanes = compute, lanes
        super().__init__(name=f"vector_{lanes}x{compute}")

    @property
    def scalar(self) -> Any:
        """numba's type of one lane."""
        return SCALARS[self.compute][0]


@register_model(ElementType)
class ElementModel(models.OpaqueModel):
    """No value at run time."""


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """An LLVM vector, passed and kept by value."""

    def __init__(self, dmm: object, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(SCALARS[fe_type.compute][1], fe_type.lanes))


_ALL = [e for whole in (F32, F64, BF16, F16) for e in (whole, whole.halved())]
ELEMENT_TYPES = {e: ElementType(e) for e in _ALL}
VECTOR_TYPES = {(e.compute, e.lanes): VectorType(e.compute, e.lanes) for e in _ALL}


def vector_of(tag: ElementType) -> VectorType:
    """The vectors that kernels compute with for an element tag."""
    return VECTOR_TYPES[tag.element.compute, tag.element.lanes]


@typeof_impl.register(Element)
def _typeof_element(value: Element, c: Any) -> ElementType:
    return ELEMENT_TYPES[value]


@lower_constant(ElementType)
def _lower_element(context: Any, builder: Any, typ: ElementType, value: Element) -> Any:
    return context.get_dummy_value()
