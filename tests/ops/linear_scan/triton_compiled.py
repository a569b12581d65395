"""Compiles the kernels for two generations of GPUs. Run as a script."""

from __future__ import annotations

import itertools
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from salience.ops.linear_scan.triton_kernels import backward_kernel, forward_kernel

WHOLE = {"PLANES": 2, "VARYING": True, "HAS_ENTRY": True, "HAS_CODES": True, "REVERSE": True, "COMPUTE": tl.float32,
         "BD": 32}  # fmt: skip
LESS = {"PLANES": 1, "VARYING": False, "HAS_ENTRY": False, "HAS_CODES": False, "REVERSE": False}
ABSENT = dict.fromkeys(("entry", "codes"))  # what is absent is None


def make(kernel: Any, constants: dict[str, Any], arch: int) -> None:
    """Through the whole compiler; an error of its is ours."""
    signature, fixed = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], fixed[(place,)] = "constexpr", constants[name]
        elif name in ("length", "width") or name.endswith(("_b", "_l", "_p")):
            signature[name] = "i32"
        else:
            signature[name] = {"codes": "*u8", "before": "*i64"}.get(name, "*fp32")
    source = ASTSource(kernel, signature, fixed, {})
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 1})
    assert "shfl." not in made.asm["ptx"]  # a lane owns a channel


def main() -> None:
    for arch, changed in itertools.product((80, 90), ({}, LESS | ABSENT, LESS | {"PLANES": 2, "HAS_CODES": True})):
        make(forward_kernel, WHOLE | changed, arch)
        last = {"HAS_LAST": not changed} | ({"before": None, "dlast": None} if "codes" in changed else {})
        make(backward_kernel, WHOLE | changed | last, arch)


if __name__ == "__main__":
    main()
