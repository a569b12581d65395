"""Compiles the kernels for two generations of GPUs and looks for shuffles between lanes. Run as a script.

Lanes own channels (`triton_kernels`): the recurrence has no shuffle. Only the sums of dB and dC have some.
"""

from __future__ import annotations

import itertools
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from salience.ops.causal_conv1d import triton_kernels as conv
from salience.ops.constants import LN2
from salience.ops.selective_scan.triton_kernels import (
    ROWS,
    TILE,
    backward_kernel,
    carry_kernel,
    forward_kernel,
    step_kernel,
)

SEQUENCES = (
    "x",
    "dx",
    "initial",
    "state",
    "dinitial",
    "dstate",
    "u",
    "dt",
    "z",
    "B",
    "C",
    "dy",
    "y",
    "du",
    "ddt",
    "dz",
)
WHOLE = {"HAS_Z": True, "HAS_D": True, "HAS_BIAS": True, "HAS_CODES": True, "HAS_ENTRY": True, "SOFTPLUS": True,
         "COMPUTE": tl.float32, "TERMS": 8, "TILE": TILE, "BN": 16, "BD": 32}  # fmt: skip
FORWARD = WHOLE | {"REVERSE": False, "SAVE": True, "STATE_ONLY": False, "ADJOINT": False, "UNROLL": 4}
PLAIN = {"HAS_Z": False, "HAS_D": False, "HAS_BIAS": False, "HAS_CODES": False, "HAS_ENTRY": False, "SOFTPLUS": False}
PLAIN |= dict.fromkeys(("z", "D", "bias", "codes", "entry"))  # what is absent is None
ENDS = {"STATE_ONLY": True, "SAVE": False, "y": None, "states": None}
CONV = {"HAS_BIAS": True, "HAS_INITIAL": True, "REVERSE": False, "SILU": True, "COMPUTE": tl.float32, "WIDTH": 4,
        "ROWS": 16, "BD": 64}  # fmt: skip
CONV_STEP = {"HAS_BIAS": True, "SILU": True, "COMPUTE": tl.float32, "WIDTH": 4, "BD": 128}
STEP = {k: v for k, v in WHOLE.items() if k not in ("HAS_CODES", "HAS_ENTRY", "TILE")}


def shuffles(kernel: Any, constants: dict[str, Any], element: str, arch: int) -> int:
    """Shuffles in the compiled kernel; its sequences have the type `element`."""
    signature, fixed, aligned = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], fixed[(place,)] = "constexpr", constants[name]
        elif name in ROWS or name.endswith(("_b", "_g", "_l", "_w")):
            signature[name] = "i32"
        elif name.endswith(("_d", "_n")):
            signature[name], fixed[(place,)] = "constexpr", 1
        else:
            other = {"codes": "u8", "places": "i64", "starts": "i64", "counts": "i64"}.get(name, "fp32")
            signature[name] = f"*{element if name in SEQUENCES else other}"
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, fixed, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 1})
    return made.asm["ptx"].count("shfl.")


def main() -> None:
    sums = 2 * TILE * 5  # dB and dC: for each row of a tile, five halvings of a warp
    carry = {"BACKWARD": True, "HAS_ENTRY": True, "COMPUTE": tl.float32, "BD": 32}
    for arch, element in itertools.product((80, 90), ("fp32", "bf16")):
        cases = [
            (forward_kernel, FORWARD, 0),
            (forward_kernel, FORWARD | PLAIN | {"REVERSE": True, "SAVE": False, "states": None, "sums": None}, 0),
            (forward_kernel, FORWARD | ENDS, 0),
            (forward_kernel, FORWARD | ENDS | {"ADJOINT": True}, 0),
            (backward_kernel, WHOLE | {"REVERSE": True, "LN2": LN2}, sums),
            (backward_kernel, WHOLE | PLAIN | {"REVERSE": False, "LN2": LN2}, sums),
            (carry_kernel, carry, 0),
            (step_kernel, STEP, 0),
            (conv.forward_kernel, CONV | {"TABLE": True}, None),
            (conv.forward_kernel, CONV | {"TABLE": False}, None),
            (conv.backward_kernel, CONV | {"TABLE": True, "HAS_STATE": True, "TILES": 8}, None),
            (conv.backward_kernel, CONV | {"TABLE": False, "HAS_STATE": False, "TILES": 8}, None),
            (conv.step_kernel, CONV_STEP, 0),
        ]
        for kernel, constants, allowed in cases:
            found = shuffles(kernel, constants, element, arch)
            assert allowed in (found, None), (
                f"{kernel.__name__}, sm_{arch}, {element}: {found} shuffles, {allowed} expected"
            )


if __name__ == "__main__":
    main()
