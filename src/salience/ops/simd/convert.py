"""Conversion between the stored types (f32, f64, bf16, f16) and the vectors of the compute type."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from salience.ops.simd.lower import I16, I32, I64, has, splat

F, D, H = ir.FloatType(), ir.DoubleType(), ir.HalfType()
STORED = {"f32": F, "f64": D, "bf16": I16, "f16": I16}


def widen(context: Any, b: Any, name: str, x: Any) -> Any:
    """A vector (or scalar) as stored -> float32, exactly; float32 and float64 stay as they are."""
    if name == "bf16":
        return b.bitcast(b.shl(b.zext(x, _like(x, I32)), _constant(x, I32, 16)), _like(x, F))
    if name == "f16":
        return _half_to_float(context, b, x)
    return x


def narrow(context: Any, b: Any, name: str, x: Any) -> Any:
    """A vector of the compute type -> the stored type, rounded to nearest, ties to even."""
    if name == "bf16":
        return _float_to_bfloat(b, x)
    if name == "f16":
        return _float_to_half(context, b, x)
    return x


def _like(x: Any, scalar: Any) -> Any:
    return ir.VectorType(scalar, x.type.count) if isinstance(x.type, ir.VectorType) else scalar


def _constant(x: Any, scalar: Any, value: float | int) -> Any:
    typ = _like(x, scalar)
    return splat(typ, value) if isinstance(typ, ir.VectorType) else ir.Constant(typ, value)


def _float_to_bfloat(b: Any, x: Any) -> Any:
    bits = b.bitcast(x, _like(x, I32))
    odd = b.and_(b.lshr(bits, _constant(x, I32, 16)), _constant(x, I32, 1))
    rounded = b.add(bits, b.add(odd, _constant(x, I32, 0x7FFF)))
    nan = b.sext(b.fcmp_unordered("uno", x, x), _like(x, I32))  # all bits: a NaN must not round into a number
    return b.trunc(b.lshr(b.or_(rounded, nan), _constant(x, I32, 16)), _like(x, I16))


def _half_to_float(context: Any, b: Any, x: Any) -> Any:
    if has(context, "f16c"):
        return b.fpext(b.bitcast(x, _like(x, H)), _like(x, F))
    # By integers, since plain x86 would call a library: move the bits and multiply the exponent right, subnormals too.
    wide = b.zext(x, _like(x, I32))
    magnitude = b.shl(b.and_(wide, _constant(x, I32, 0x7FFF)), _constant(x, I32, 13))
    value = b.bitcast(b.fmul(b.bitcast(magnitude, _like(x, F)), _constant(x, F, 2.0**112)), _like(x, I32))
    special = b.icmp_unsigned(">=", magnitude, _constant(x, I32, 0x7C00 << 13))  # inf and NaN
    value = b.select(special, b.or_(magnitude, _constant(x, I32, 0x7F800000)), value)
    sign = b.shl(b.and_(wide, _constant(x, I32, 0x8000)), _constant(x, I32, 16))
    return b.bitcast(b.or_(value, sign), _like(x, F))


def _float_to_half(context: Any, b: Any, x: Any) -> Any:
    if has(context, "f16c"):
        return b.bitcast(b.fptrunc(x, _like(x, H)), _like(x, I16))
    bits = b.bitcast(x, _like(x, I32))
    sign = b.lshr(b.and_(bits, _constant(x, I32, 0x80000000)), _constant(x, I32, 16))
    magnitude = b.and_(bits, _constant(x, I32, 0x7FFFFFFF))
    odd = b.and_(b.lshr(magnitude, _constant(x, I32, 13)), _constant(x, I32, 1))
    normal = b.lshr(b.add(b.sub(magnitude, _constant(x, I32, 112 << 23)), b.add(odd, _constant(x, I32, 0xFFF))),
                    _constant(x, I32, 13))  # fmt: skip
    # Below 2^-14 adding 1/2 lets the float unit round to a multiple of half's smallest number, 2^-24.
    half = _constant(x, F, 0.5)
    tiny = b.bitcast(b.fadd(b.bitcast(magnitude, _like(x, F)), half), _like(x, I32))
    tiny = b.sub(tiny, b.bitcast(half, _like(x, I32)))
    is_tiny = b.icmp_unsigned("<", magnitude, _constant(x, I32, 113 << 23))
    value = b.select(is_tiny, tiny, normal)
    overflow = b.icmp_unsigned(">=", magnitude, _constant(x, I32, 0x477FF000))  # rounds to 65536 and more
    value = b.select(overflow, _constant(x, I32, 0x7C00), value)
    is_nan = b.icmp_unsigned(">", magnitude, _constant(x, I32, 0x7F800000))
    value = b.select(is_nan, _constant(x, I32, 0x7E00), value)
    return b.trunc(b.or_(value, sign), _like(x, I16))


def pointer(b: Any, address: Any, typ: Any) -> Any:
    """An address as a typed pointer."""
    return b.inttoptr(address, typ.as_pointer())


def offset(b: Any, address: Any, index: Any, size: int) -> Any:
    """address + index * size."""
    return b.add(address, b.mul(index, ir.Constant(I64, size)))
