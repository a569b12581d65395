"""exp2, sigmoid and softplus as vector IR: exp2 to one unit in the last place (eps), the others to (2 + |x|) eps.

The |x| is the rounding of x log2(e), relative to values as small as exp(-|x|). Polynomials are minimax fits (Remez,
40 digits and more) of the relative error: 2^f on [-1/2, 1/2] to 2.6e-9 (float32) and 1.8e-17 (float64), on
[-1/16, 1/16] to 2.5e-8, on [-1/32, 1/32] to 2.3e-9, log(1 + e)/e on [0, 1] to 4.7e-9 and 9.1e-18: below half a unit
in the last place of either type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from salience.ops.constants import LOG2E
from salience.ops.simd.lower import call as call_llvm
from salience.ops.simd.lower import (
    fma,
    has,
    held,
    integers,
    maximum,
    minimum,
    polynomial,
    shuffle,
    splat,
    suffix,
    width,
)

EXP2 = {
    32: (1.0, 0.69314721496788496344, 0.24022652782876176793, 0.055503105512069805781, 0.0096176929761431872291,
         0.0013406643847480060174, 0.00015594677015105410559),
    64: (1.0, 0.69314718055994569675, 0.24022650695910098006, 0.055504108664790394528, 0.0096181291076070026171,
         0.001333355815343996974, 0.00015403530441571850099, 0.00001525272738518977478, 1.3215442675452855182e-6,
         1.0180647660573069343e-7, 7.0725703945407994337e-9, 4.0780717860928704165e-10),
}  # fmt: skip
# (2^f - 1)/f on [-1/32, 1/32] and on [-1/16, 1/16]
EXP2_SIXTEENTH = (0.69314718024204304776, 0.2402335515772970789, 0.055505736316571486461)
EXP2_EIGHTH = (0.69314721426012836042, 0.24025762978444159189, 0.055496221830451642976)
EXP2_COARSE = (0.9999280729973528, 0.6932609862029611, 0.24261113138277252, 0.05517166935952183)  # to 7.5e-5
LOG1P = {
    32: (0.99999999528731149763, -0.49999902420063846071, 0.33329962347703026338, -0.24954133016942197225,
         0.19675936253607751672, -0.15305584513080973757, 0.10603642016551354586, -0.056959413253581925763,
         0.019851400494396657425, -0.0032440119125188235831),
    64: (0.99999999999999999091, -0.49999999999999184218, 0.33333333333211256814, -0.24999999992722283967,
         0.19999999769460870039, -0.16666662178243803162, 0.14285655678525148673, -0.12499456352650938702,
         0.11107381140220530461, -0.09980505660625221447, 0.090115505200805832847, -0.080772780565130112459,
         0.070279830593203870026, -0.057388229861259252682, 0.042166641587864124406, -0.026623351109287304927,
         0.013756321106727279973, -0.0055021679392707933565, 0.0015817213255316583464, -0.00028880901991523313532,
         0.000025041868911510856871),
}  # fmt: skip
MANTISSA = {32: 23, 64: 52}
LOWEST = {32: -126.0, 64: -1022.0}  # 2^LOWEST is the smallest normal number; below it exp2 stays there
HIGHEST = {32: 128.0, 64: 1024.0}  # from here on infinite


def exp2(context: Any, b: Any, x: Any) -> Any:
    """2^x for finite x: inf above the range, 0 or the smallest normal number (by machine) below; NaN stays NaN."""
    if saturates(context):
        return exp2_within(context, b, x)
    bits = width(x.type)
    return exp2_shift(b, minimum(b, splat(x.type, HIGHEST[bits]), maximum(b, splat(x.type, LOWEST[bits]), x)))


def saturates(context: Any) -> bool:
    """Whether `exp2_within` takes any x here: AVX-512 scales by an instruction that ends in 0 and inf."""
    return has(context, "avx512f")


def exp2_within(context: Any, b: Any, x: Any) -> Any:
    """2^x for |x| up to -LOWEST: nonsense outside unless the machine `saturates`; NaN stays NaN."""
    single = width(x.type) == 32
    if saturates(context):
        return exp2_table(b, x) if single else exp2_scalef(b, x)
    return exp2_eighths(context, b, x) if single and has(context, "avx2") else exp2_shift(b, x)


def exp2_shift(b: Any, x: Any) -> Any:
    """Round by adding 1.5 * 2^mantissa, whose low bits are then the integer part: shifted into the exponent."""
    bits, itype = width(x.type), integers(x.type, width(x.type))
    magic = splat(x.type, 1.5 * 2.0 ** MANTISSA[bits])
    shifted = b.fadd(x, magic)
    fraction = b.fsub(x, b.fsub(shifted, magic))
    value = polynomial(b, fraction, EXP2[bits])
    exponent = b.shl(b.bitcast(shifted, itype), splat(itype, MANTISSA[bits]))
    return b.bitcast(b.add(b.bitcast(value, itype), exponent), x.type)


def exp2_eighths(context: Any, b: Any, x: Any) -> Any:
    """AVX2, float32: x = n + i/8 + f; 2^(i/8) out of one register, n shifted into its exponent, and a cubic for 2^f.

    A shorter chain than the polynomial of degree 6, two multiply-adds fewer, and fewer constants in 16 registers: on
    Zen 3 a loop of state updates takes 0.69 of the time (0.62 of it with the clamps of `exp2`). A table of four in a
    quarter, or a polynomial of degree 5, which costs a unit in the last place, are slower.
    """
    itype = integers(x.type, 32)
    magic = held(context, b, splat(x.type, 1.5 * 2.0**20))  # its last place is 1/8: the three lowest bits are i
    shifted = b.fadd(x, magic)
    fraction = b.fsub(x, b.fsub(shifted, magic))
    bits = b.bitcast(shifted, itype)
    # The shift below moves n into the exponent and i into the mantissa: the table's bits have that i taken off.
    eighths = np.arange(8, dtype=np.int32)
    table = (np.exp2(eighths / 8).astype(np.float32).view(np.int32) - (eighths << 20)).view(np.float32)
    root = _permute8(b, table.tolist(), bits)
    root = b.bitcast(b.add(b.bitcast(root, itype), b.shl(bits, splat(itype, 20))), x.type)
    return fma(b, b.fmul(root, fraction), polynomial(b, fraction, EXP2_EIGHTH, context), root)


def _permute8(b: Any, table: list[float], index: Any) -> Any:
    """table[the three lowest bits of each lane], for vectors of 8 or 16 lanes."""
    eight = ir.VectorType(ir.FloatType(), 8)
    name, values = "llvm.x86.avx2.permps", ir.Constant(eight, table)
    if index.type.count == 8:
        return call_llvm(b, name, eight, values, index)
    halves = (shuffle(b, index, index, list(range(first, first + 8))) for first in (0, 8))
    low, high = (call_llvm(b, name, eight, values, half) for half in halves)
    return shuffle(b, low, high, list(range(16)))


def exp2_scalef(b: Any, x: Any) -> Any:
    """AVX-512: an instruction multiplies by the power of two and saturates, so that nothing needs a clamp."""
    whole = call_llvm(b, f"llvm.nearbyint.{suffix(x.type)}", x.type, x)
    return _scale(b, polynomial(b, b.fsub(x, whole), EXP2[width(x.type)]), whole)


def exp2_table(b: Any, x: Any) -> Any:
    """AVX-512, float32: x = n + i/16 + f; 2^(i/16) out of one register, and then a cubic does for 2^f.

    Two multiply-adds fewer than the polynomial of degree 6, which is a fifth of a whole state update.
    """
    magic = splat(x.type, 1.5 * 2.0**19)  # its last place is 1/16: the four lowest bits of the sum are i
    shifted = b.fadd(x, magic)
    whole = b.fsub(shifted, magic)
    fraction = b.fsub(x, whole)
    table = ir.Constant(x.type, [2.0 ** (i / 16) for i in range(16)])
    root = call_llvm(b, "llvm.x86.avx512.permvar.sf.512", x.type, table, b.bitcast(shifted, integers(x.type, 32)))
    value = fma(b, b.fmul(root, fraction), polynomial(b, fraction, EXP2_SIXTEENTH), root)
    return _scale(b, value, whole)


def _scale(b: Any, value: Any, exponent: Any) -> Any:
    """value * 2^floor(exponent)."""
    name = "ps" if width(value.type) == 32 else "pd"
    mask, rounding = ir.Constant(ir.IntType(value.type.count), -1), ir.Constant(ir.IntType(32), 4)
    name = f"llvm.x86.avx512.mask.scalef.{name}.512"
    return call_llvm(b, name, value.type, value, exponent, value, mask, rounding)


def sigmoid(context: Any, b: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)), with full relative accuracy in both tails."""
    e, one = _exp_minus_magnitude(context, b, x), splat(x.type, 1.0)
    r = b.fdiv(one, b.fadd(one, e))
    return b.select(b.fcmp_ordered("<", x, splat(x.type, 0.0)), b.fmul(e, r), r)


def silu_for_halves(b: Any, x: Any) -> Any:
    """x / (1 + exp(-x)) for results that are rounded to 16 bits: right to 7.5e-5, and below x = -87 (nearly) 0.

    bfloat16 rounds by up to 3.9e-3, float16 by up to 4.9e-4. A cubic for 2^f, without a table, and one division of x in
    place of a reciprocal and a product leave 12 instructions of 16.
    """
    bits = width(x.type)
    itype, magic = integers(x.type, bits), splat(x.type, 1.5 * 2.0 ** MANTISSA[bits])
    near = minimum(b, splat(x.type, 87.0), maximum(b, splat(x.type, -87.0), x))
    scale = splat(x.type, -LOG2E)
    shifted = fma(b, near, scale, magic)  # as in `exp2_shift`, of -x log2(e)
    fraction = fma(b, near, scale, b.fsub(magic, shifted))
    power = b.bitcast(polynomial(b, fraction, EXP2_COARSE), itype)
    power = b.bitcast(b.add(power, b.shl(b.bitcast(shifted, itype), splat(itype, MANTISSA[bits]))), x.type)
    return b.fdiv(x, b.fadd(splat(x.type, 1.0), power))


def softplus(context: Any, b: Any, x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), with full relative accuracy where it is tiny."""
    e = _exp_minus_magnitude(context, b, x)
    tail = polynomial(b, e, LOG1P[width(x.type)], context)
    return fma(b, e, tail, maximum(b, splat(x.type, 0.0), x))


def _exp_minus_magnitude(context: Any, b: Any, x: Any) -> Any:
    magnitude = call_llvm(b, f"llvm.fabs.{suffix(x.type)}", x.type, x)
    scaled = b.fmul(magnitude, splat(x.type, -LOG2E))
    lowest = LOWEST[width(x.type)] * (2 if saturates(context) else 1)
    return exp2_within(context, b, maximum(b, splat(x.type, lowest), scaled))  # x may be infinite
