"""Intrinsics that touch memory. Addresses are int64 bytes (`tensor.data_ptr()` plus strides), aligned or not."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from salience.ops.simd.convert import STORED, narrow, offset, pointer, widen
from salience.ops.simd.lower import I8, I32, I64, broadcast, call
from salience.ops.simd.vector_types import VECTOR_TYPES, ElementType, VectorType


def _vector(tag: ElementType) -> VectorType:
    return VECTOR_TYPES[tag.element.compute, tag.element.lanes]


def _stored(tag: ElementType) -> ir.VectorType:
    return ir.VectorType(STORED[tag.element.name], tag.element.lanes)


@intrinsic
def lanes(typingctx: Any, tag: Any) -> Any:
    """lanes(tag) -> how many values a vector of its compute type holds: a constant."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(I64, tag.element.lanes)

    return types.int64(tag), codegen


@intrinsic
def size(typingctx: Any, tag: Any) -> Any:
    """size(tag) -> bytes of one stored element: a constant."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(I64, tag.element.size)

    return types.int64(tag), codegen


@intrinsic
def compute_size(typingctx: Any, tag: Any) -> Any:
    """compute_size(tag) -> bytes of one element of its compute type, 4 or 8: a constant."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(I64, 8 if tag.element.compute == "f64" else 4)

    return types.int64(tag), codegen


@intrinsic
def vector_size(typingctx: Any, tag: Any) -> Any:
    """vector_size(tag) -> bytes of a vector of its compute type: a constant."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(I64, tag.element.lanes * (8 if tag.element.compute == "f64" else 4))

    return types.int64(tag), codegen


@intrinsic
def load(typingctx: Any, tag: Any, address: Any) -> Any:
    """load(tag, address) -> vector: `lanes` stored elements in a row, in the compute type."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = b.load(pointer(b, args[1], _stored(tag)), align=tag.element.size)
        return widen(context, b, tag.element.name, raw)

    return _vector(tag)(tag, types.int64), codegen


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

    return _vector(tag)(tag, types.int64, types.int64), codegen


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

    return _vector(tag).scalar(tag, types.int64), codegen


@intrinsic
def store_scalar(typingctx: Any, tag: Any, address: Any, value: Any) -> Any:
    """store_scalar(tag, address, value): one number of any real type, rounded to the stored one."""
    scalar = _vector(tag).scalar

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        raw = narrow(context, b, tag.element.name, context.cast(b, args[2], sig.args[2], scalar))
        b.store(raw, pointer(b, args[1], raw.type), align=tag.element.size)
        return context.get_dummy_value()

    return types.void(tag, types.int64, value), codegen


@intrinsic
def splat(typingctx: Any, tag: Any, value: Any) -> Any:
    """splat(tag, number) -> vector with the number in every lane."""
    vector = _vector(tag)

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        scalar = context.cast(b, args[1], sig.args[1], vector.scalar)
        return broadcast(b, context.get_value_type(vector), scalar)

    return vector(tag, value), codegen


@intrinsic
def load_splat(typingctx: Any, tag: Any, address: Any) -> Any:
    """load_splat(tag, address) -> vector with the one stored element in every lane (a memory operand where x86 can)."""
    vector = _vector(tag)

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

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return pointer(b, args[0], I8)

    return types.voidptr(types.int64), codegen


@intrinsic
def load_byte(typingctx: Any, address: Any) -> Any:
    """load_byte(address) -> the unsigned byte there, as int64: flags, masks."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.zext(b.load(pointer(b, args[0], I8)), I64)

    return types.int64(types.int64), codegen


def _copy(b: Any, source: Any, target: Any, n: Any, tag: ElementType) -> None:
    typ, step = STORED[tag.element.name], tag.element.size
    with cgutils.for_range(b, n, intp=I64) as loop:
        value = b.load(pointer(b, offset(b, source, loop.index, step), typ), align=step)
        b.store(value, pointer(b, offset(b, target, loop.index, step), typ), align=step)
