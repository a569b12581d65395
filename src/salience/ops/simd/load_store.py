"""Intrinsics that touch memory, and conversions between the stored types and the vectors of the compute type.

Addresses are int64 bytes (`tensor.data_ptr()` plus strides), aligned or not.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from salience.ops.simd.element import ElementType, vector_of
from salience.ops.simd.lower import I8, I16, I32, I64, broadcast, call, has
from salience.ops.simd.lower import splat as constant_vector

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
    return constant_vector(typ, value) if isinstance(typ, ir.VectorType) else ir.Constant(typ, value)


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


def _stored(tag: ElementType) -> ir.VectorType:
    return ir.VectorType(STORED[tag.element.name], tag.element.lanes)


@intrinsic
def load(typingctx: Any, tag: Any, address: Any) -> Any:
    """load(tag, address) -> vector: `lanes` stored elements in a row, in the compute type."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = b.load(pointer(b, args[1], _stored(tag)), align=tag.element.size)
        return widen(context, b, tag.element.name, raw)

    return vector_of(tag)(tag, types.int64), codegen


@intrinsic
def load_n(typingctx: Any, tag: Any, address: Any, n: Any) -> Any:
    """load_n(tag, address, n) -> vector of the first n elements (n >= lanes: all), zeros behind; reads no further."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        stored, full = _stored(tag), ir.Constant(I64, tag.element.lanes)
        buffer = cgutils.alloca_once(b, stored)
        with b.if_else(b.icmp_signed(">=", args[2], full), likely=True) as (whole, tail):
            with whole:
                straight, ends = b.load(pointer(b, args[1], stored), align=tag.element.size), [b.block]
            with tail:
                b.store(ir.Constant(stored, None), buffer)
                _copy(b, args[1], b.ptrtoint(buffer, I64), args[2], tag)
                gathered = b.load(buffer)
                ends.append(b.block)
        raw = b.phi(stored)  # only a tail goes through memory
        raw.add_incoming(straight, ends[0])
        raw.add_incoming(gathered, ends[1])
        return widen(context, b, tag.element.name, raw)

    return vector_of(tag)(tag, types.int64, types.int64), codegen


@intrinsic
def store(typingctx: Any, tag: Any, address: Any, value: Any) -> Any:
    """store(tag, address, vector): rounded to the stored type (nearest, ties to even)."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = narrow(context, b, tag.element.name, args[2])
        b.store(raw, pointer(b, args[1], raw.type), align=tag.element.size)
        return context.get_dummy_value()

    return types.void(tag, types.int64, value), codegen


@intrinsic
def store_n(typingctx: Any, tag: Any, address: Any, value: Any, n: Any) -> Any:
    """store_n(tag, address, vector, n): the first n elements (n >= lanes: all); writes no further."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = narrow(context, b, tag.element.name, args[2])
        buffer = cgutils.alloca_once(b, raw.type)
        with b.if_else(b.icmp_signed(">=", args[3], ir.Constant(I64, tag.element.lanes)), likely=True) as (whole, tail):
            with whole:
                b.store(raw, pointer(b, args[1], raw.type), align=tag.element.size)
            with tail:
                b.store(raw, buffer)
                _copy(b, b.ptrtoint(buffer, I64), args[1], args[3], tag)
        return context.get_dummy_value()

    return types.void(tag, types.int64, value, types.int64), codegen


@intrinsic
def copy_strided(typingctx: Any, tag: Any, source: Any, source_step: Any, target: Any, target_step: Any, n: Any) -> Any:
    """copy_strided(tag, source, source_step, target, target_step, n): n stored elements as they are, steps in bytes."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        _, source, source_step, target, target_step, n = args
        typ = STORED[tag.element.name]
        with cgutils.for_range(b, n, intp=I64) as loop:
            read = pointer(b, b.add(source, b.mul(loop.index, source_step)), typ)
            write = pointer(b, b.add(target, b.mul(loop.index, target_step)), typ)
            b.store(b.load(read, align=tag.element.size), write, align=tag.element.size)
        return context.get_dummy_value()

    return types.void(tag, *[types.int64] * 5), codegen


@intrinsic
def load_scalar(typingctx: Any, tag: Any, address: Any) -> Any:
    """load_scalar(tag, address) -> one element in the compute type (float32 or float64)."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = b.load(pointer(b, args[1], STORED[tag.element.name]), align=tag.element.size)
        return widen(context, b, tag.element.name, raw)

    return vector_of(tag).scalar(tag, types.int64), codegen


@intrinsic
def store_scalar(typingctx: Any, tag: Any, address: Any, value: Any) -> Any:
    """store_scalar(tag, address, value): one number of any real type, rounded to the stored one."""
    scalar = vector_of(tag).scalar

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = narrow(context, b, tag.element.name, context.cast(b, args[2], sig.args[2], scalar))
        b.store(raw, pointer(b, args[1], raw.type), align=tag.element.size)
        return context.get_dummy_value()

    return types.void(tag, types.int64, value), codegen


@intrinsic
def load_splat(typingctx: Any, tag: Any, address: Any) -> Any:
    """load_splat(tag, address) -> vector with the one stored element in every lane (a memory operand where x86 can)."""
    vector = vector_of(tag)

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = b.load(pointer(b, args[1], STORED[tag.element.name]), align=tag.element.size)
        return broadcast(b, context.get_value_type(vector), widen(context, b, tag.element.name, raw))

    return vector(tag, types.int64), codegen


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """prefetch(address): fetches its cache line into the second level; the address may be invalid."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        place = pointer(b, args[0], I8)
        call(b, "llvm.prefetch.p0", ir.VoidType(), place, I32(0), I32(2), I32(1))  # read, second level, data
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def count_up(typingctx: Any, address: Any) -> Any:
    """count_up(address) -> the int64 there, increased by one atomically."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.atomic_rmw("add", pointer(b, args[0], I64), ir.Constant(I64, 1), "seq_cst")

    return types.int64(types.int64), codegen


@intrinsic
def pointer_to(typingctx: Any, address: Any) -> Any:
    """pointer_to(address) -> a pointer for numba's `carray`."""

    return types.voidptr(types.int64), lambda context, b, sig, args: pointer(b, args[0], I8)


@intrinsic
def load_byte(typingctx: Any, address: Any) -> Any:
    """load_byte(address) -> the unsigned byte there, as int64: flags, masks."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.zext(b.load(pointer(b, args[0], I8)), I64)

    return types.int64(types.int64), codegen


def _copy(b: Any, source: Any, target: Any, n: Any, tag: ElementType) -> None:
    typ, step = STORED[tag.element.name], tag.element.size
    with cgutils.for_range(b, n, intp=I64) as loop:
        way = b.mul(loop.index, ir.Constant(I64, step))
        value = b.load(pointer(b, b.add(source, way), typ), align=step)
        b.store(value, pointer(b, b.add(target, way), typ), align=step)
