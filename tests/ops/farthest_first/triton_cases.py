"""The Triton kernel by its interpreter, and through its compiler. A script: the switch comes before triton's import.

With TRITON_INTERPRET=1 it prints what is chosen for `distances()`; without, it compiles for two generations of GPUs.
"""

from __future__ import annotations

import json
import os
import sys

import torch
from torch import Tensor

COUNT = 11


def distances(batch: int = 2, n: int = 19) -> Tensor:
    """(B, n, n) whole numbers from 0 to 9: many ties."""
    draw = torch.Generator().manual_seed(3)
    half = torch.randint(0, 5, (batch, n, n), generator=draw)
    return (half + half.transpose(1, 2)).float()


def compiled() -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from salience.ops.farthest_first.triton import steps_kernel

    for arch in (80, 90):
        types = ("*fp32", "*fp32", "*i64", "i32", "i32", "constexpr")
        signature = dict(zip(steps_kernel.arg_names, types, strict=True))
        source = ASTSource(steps_kernel, signature, {(5,): 1024}, {})
        triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 8})


def main() -> None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        compiled()
        return
    from salience.ops.farthest_first import farthest_first

    sys.stdout.write(json.dumps(farthest_first(distances(), COUNT, backend="triton").tolist()))


if __name__ == "__main__":
    main()
