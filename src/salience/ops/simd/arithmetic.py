"""Operators and functions on vectors in registers, for use inside numba kernels."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, lower_builtin, type_callable

from salience.ops.simd import functions, lower
from salience.ops.simd.element import VectorType, vector_of


def _operator(op: Any, instruction: str) -> None:
    """vector op vector -> vector, one LLVM instruction."""

    @type_callable(op)
    def typer(context: Any) -> Any:
        return lambda x, y: x if isinstance(x, VectorType) and x == y else None

    @lower_builtin(op, VectorType, VectorType)
    def lowered(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return getattr(b, instruction)(*args)


for _op, _instruction in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
    (operator.iadd, "fadd"), (operator.isub, "fsub"), (operator.imul, "fmul"), (operator.itruediv, "fdiv"),
):  # fmt: skip
    _operator(_op, _instruction)


def _function(name: str, arguments: int, emit: Any, doc: str) -> Any:
    """An intrinsic of `arguments` vectors -> vector, from a function that emits its IR."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return emit(context, b, *args)

    def resolve(*vectors: Any) -> Any:
        alike = isinstance(vectors[0], VectorType) and all(v == vectors[0] for v in vectors)
        return (vectors[0](*vectors), codegen) if alike else None

    typer: Any = {  # numba counts a function's arguments by its signature
        1: lambda typingctx, x: resolve(x),
        2: lambda typingctx, x, y: resolve(x, y),
        3: lambda typingctx, x, y, z: resolve(x, y, z),
    }[arguments]
    typer.__name__ = typer.__qualname__ = name
    typer.__doc__ = doc
    return intrinsic(typer)


fma = _function("fma", 3, lambda c, b, x, y, z: lower.fma(b, x, y, z), "x * y + z, fused where the machine can.")
magnitude = _function(
    "magnitude", 1, lambda c, b, x: lower.call(b, f"llvm.fabs.{lower.suffix(x.type)}", x.type, x), "|x|."
)
maximum = _function("maximum", 2, lambda c, b, x, y: lower.maximum(b, x, y), "Lane by lane; y where one is NaN.")
exp2 = _function("exp2", 1, functions.exp2, "2^x; inf above the range, (nearly) 0 below it, NaN stays.")
exp2_within = _function("exp2_within", 1, functions.exp2_within, "2^x for x in the range of `exp2_range`.")
sigmoid = _function("sigmoid", 1, functions.sigmoid, "1 / (1 + exp(-x)).")
silu_for_halves = _function(
    "silu_for_halves", 1, lambda c, b, x: functions.silu_for_halves(b, x), "x sigmoid(x) to 7.5e-5, float32 only."
)
softplus = _function("softplus", 1, functions.softplus, "log(1 + exp(x)).")


@intrinsic
def exp2_range(typingctx: Any, tag: Any) -> Any:
    """exp2_range(tag) -> how large |x| may be in `exp2_within`, inf where it takes any x: a constant."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        lowest = functions.LOWEST[64 if tag.element.compute == "f64" else 32]
        return ir.Constant(ir.DoubleType(), float("inf") if functions.saturates(context) else -lowest)

    return types.float64(tag), codegen


@intrinsic
def splat(typingctx: Any, tag: Any, value: Any) -> Any:
    """splat(tag, number) -> vector with the number in every lane."""
    vector = vector_of(tag)

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        scalar = context.cast(b, args[1], sig.args[1], vector.scalar)
        return lower.broadcast(b, context.get_value_type(vector), scalar)

    return vector(tag, value), codegen


def _reduction(name: str, join: Any, doc: str) -> Any:
    """An intrinsic of a vector -> scalar of the compute type, its lanes joined pairwise."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.extract_element(_halve(b, args[0], 1, join), lower.I32(0))

    def typer(typingctx: Any, x: Any) -> Any:
        return (x.scalar(x), codegen) if isinstance(x, VectorType) else None

    typer.__name__ = typer.__qualname__ = name
    typer.__doc__ = doc
    return intrinsic(typer)


def _halve(b: Any, x: Any, until: int, join: Any) -> Any:
    """Fold a vector in the middle and `join` the halves, until `until` lanes remain."""
    while x.type.count > until:
        half = x.type.count // 2
        undefined = ir.Constant(x.type, ir.Undefined)
        low = lower.shuffle(b, x, undefined, list(range(half)))
        high = lower.shuffle(b, x, undefined, list(range(half, 2 * half)))
        x = join(b, low, high)
    return x


def _add(b: Any, x: Any, y: Any) -> Any:
    return b.fadd(x, y)


horizontal_sum = _reduction("horizontal_sum", _add, "The sum of a vector's lanes.")
horizontal_maximum = _reduction("horizontal_maximum", lower.maximum, "The largest lane; any where one is NaN.")


@intrinsic
def fold4(typingctx: Any, p: Any, q: Any, r: Any, s: Any) -> Any:
    """fold4(p, q, r, s) -> vector whose groups of four lanes each hold partial sums [p, q, r, s].

    The first two steps of four horizontal sums at once: 6 shuffles within 128 bits (float32) and 3 additions.
    """
    if not (isinstance(p, VectorType) and p == q == r == s):
        return None

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        n = p.lanes
        groups = range(0, n, 4)
        low = [i for g in groups for i in (g, n + g, g + 1, n + g + 1)]
        high = [i for g in groups for i in (g + 2, n + g + 2, g + 3, n + g + 3)]
        front = [i for g in groups for i in (g, g + 1, n + g, n + g + 1)]
        back = [i for g in groups for i in (g + 2, g + 3, n + g + 2, n + g + 3)]
        pq = b.fadd(lower.shuffle(b, args[0], args[1], low), lower.shuffle(b, args[0], args[1], high))
        rs = b.fadd(lower.shuffle(b, args[2], args[3], low), lower.shuffle(b, args[2], args[3], high))
        return b.fadd(lower.shuffle(b, pq, rs, front), lower.shuffle(b, pq, rs, back))

    return p(p, p, p, p), codegen


def _store4(name: str, add: bool, doc: str) -> Any:
    """An intrinsic of (address, vector) that sums the groups of four lanes: the end of `fold4`."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        four = _halve(b, args[1], 4, _add)
        place = b.inttoptr(args[0], four.type.as_pointer())
        b.store(b.fadd(b.load(place, align=4), four) if add else four, place, align=4)
        return context.get_dummy_value()

    def typer(typingctx: Any, address: Any, x: Any) -> Any:
        return (types.void(types.int64, x), codegen) if isinstance(x, VectorType) else None

    typer.__name__ = typer.__qualname__ = name
    typer.__doc__ = doc
    return intrinsic(typer)


store4 = _store4("store4", False, "store4(address, x): stores the four sums, in the compute type.")
add4 = _store4("add4", True, "add4(address, x): adds the four sums to the numbers there.")
