"""The two types added to numba: `Element` objects as compile-time tags, and vectors held in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import models, register_model, typeof_impl

from salience.ops.simd.element import BF16, F16, F32, F64, Element

SCALARS = {"f32": (types.float32, ir.FloatType()), "f64": (types.float64, ir.DoubleType())}
BITS = {"f32": 32, "f64": 64}


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


@typeof_impl.register(Element)
def _typeof_element(value: Element, c: Any) -> ElementType:
    return ELEMENT_TYPES[value]


@lower_constant(ElementType)
def _lower_element(context: Any, builder: Any, typ: ElementType, value: Element) -> Any:
    return context.get_dummy_value()
