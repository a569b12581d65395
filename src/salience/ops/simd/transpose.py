"""Blocks of 8 by 8 numbers turned in registers: rows become columns."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from salience.ops.simd.lower import shuffle

EIGHT = ir.VectorType(ir.FloatType(), 8)


@intrinsic
def turn8(typingctx: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """turn8(source, source_step, target, target_step): 8 rows of 8 float32 -> 8 columns; steps in bytes."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        rows = [b.load(place, align=4) for place in _places(b, args[0], args[1])]
        for value, place in zip(_turned(b, rows), _places(b, args[2], args[3]), strict=True):
            b.store(value, place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def turn8_onto(typingctx: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """As `turn8`, added to what is at the target."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        rows = [b.load(place, align=4) for place in _places(b, args[0], args[1])]
        for value, place in zip(_turned(b, rows), _places(b, args[2], args[3]), strict=True):
            b.store(b.fadd(b.load(place, align=4), value), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def _places(b: Any, address: Any, step: Any) -> list[Any]:
    found = []
    for _ in range(8):
        found.append(b.inttoptr(address, EIGHT.as_pointer()))
        address = b.add(address, step)
    return found


def _turned(b: Any, rows: list[Any]) -> list[Any]:
    """Pairs of numbers, fours, halves: 24 shuffles, of which x86 has each as one instruction."""
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    pairs = [shuffle(b, rows[i], rows[i + 1], lanes) for i in (0, 2, 4, 6) for lanes in (low, high)]
    first, second = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    fours = [shuffle(b, pairs[i], pairs[i + 2], lanes) for i in (0, 1, 4, 5) for lanes in (first, second)]
    front, back = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]
    return [shuffle(b, fours[i], fours[i + 4], lanes) for lanes in (front, back) for i in range(4)]
