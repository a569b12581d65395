"""Pieces of LLVM vector IR for the intrinsics. `b` is always a llvmlite builder."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.binding import initialize_native_asmparser

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))


def has(context: Any, feature: str) -> bool:
    """Whether the machine compiled for has a feature ("avx512f", "f16c" ...): numba's choice, NUMBA_CPU_* included."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


def splat(vtype: ir.VectorType, value: float | int) -> ir.Constant:
    """A constant vector."""
    return ir.Constant(vtype, [value] * vtype.count)


def held(context: Any, b: Any, value: ir.Constant) -> Any:
    """The constant as a value that a loop keeps, in a register or spilled, on machines with 16 registers.

    LLVM would rather make it anew each time, by a 64-bit address and a broadcast from there: 14 of 112 instructions of
    four state updates. An empty piece of assembly hides that it is a constant.
    """
    if has(context, "avx512f") or not has(context, "avx2") or value.type.count * width(value.type) != 256:
        return value
    initialize_native_asmparser()
    return b.call(ir.InlineAsm(ir.FunctionType(value.type, [value.type]), "", "=x,0"), [value])


def broadcast(b: Any, vtype: ir.VectorType, scalar: Any) -> Any:
    """A scalar of the element type in every lane."""
    first = b.insert_element(ir.Constant(vtype, ir.Undefined), scalar, I32(0))
    return b.shuffle_vector(first, ir.Constant(vtype, ir.Undefined), ir.Constant(ir.VectorType(I32, vtype.count), None))


def shuffle(b: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    """Lanes of x and y (numbered on from x's) in a new order."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def call(b: Any, name: str, result: Any, *args: Any) -> Any:
    """An LLVM intrinsic by its full name."""
    module = b.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(function, args)


def suffix(vtype: ir.VectorType) -> str:
    """The type as LLVM writes it in an intrinsic's name."""
    return f"v{vtype.count}{vtype.element.intrinsic_name}"


def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, fused where the machine can, else a product and a sum."""
    return call(b, f"llvm.fmuladd.{suffix(x.type)}", x.type, x, y, z)


def polynomial(b: Any, x: Any, coefficients: tuple[float, ...], context: Any = None) -> Any:
    """Horner's scheme, coefficients from the constant term up; with a context they are `held`."""
    constants = [splat(x.type, c) for c in coefficients]
    if context is not None:
        constants = [held(context, b, c) for c in constants]
    value = constants[-1]
    for c in reversed(constants[:-1]):
        value = fma(b, value, x, c)
    return value


def maximum(b: Any, x: Any, y: Any) -> Any:
    """The larger; y where either is NaN (what x86's instruction does)."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def minimum(b: Any, x: Any, y: Any) -> Any:
    """The smaller; y where either is NaN."""
    return b.select(b.fcmp_ordered("<", x, y), x, y)


def integers(vtype: ir.VectorType, bits: int) -> ir.VectorType:
    """The integer vector of as many lanes."""
    return ir.VectorType(ir.IntType(bits), vtype.count)


def width(vtype: ir.VectorType) -> int:
    """Bits of one lane."""
    return 64 if isinstance(vtype.element, ir.DoubleType) else 32
