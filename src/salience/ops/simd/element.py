"""Element types of kernels: the stored type, the compute type, and the length of a vector."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, kw_only=True)
class Element:
    """An element type: a kernel's compile-time argument.

    name: as in a kernel's signature.   size: bytes in memory.   compute: "f32" or "f64", the type in registers.
    lanes: values in a vector, 64 bytes of the compute type (LLVM splits it where registers are shorter).
    """

    name: str
    size: int
    compute: str
    lanes: int

    def halved(self) -> Element:
        """The same with vectors half as long."""
        return replace(self, lanes=self.lanes // 2)


F32 = Element(name="f32", size=4, compute="f32", lanes=16)
F64 = Element(name="f64", size=8, compute="f64", lanes=8)
BF16 = Element(name="bf16", size=2, compute="f32", lanes=16)
F16 = Element(name="f16", size=2, compute="f32", lanes=16)

ELEMENTS = {torch.float32: F32, torch.float64: F64, torch.bfloat16: BF16, torch.float16: F16}


def element_of(dtype: torch.dtype) -> Element:
    """The element type of a floating dtype; ValueError for one that no kernel computes with."""
    if dtype not in ELEMENTS:
        raise ValueError(f"dtype: {dtype}; the CPU kernels take float32, float64, bfloat16 and float16")
    return ELEMENTS[dtype]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32: the dtype in which sums and states are held."""
    return torch.float64 if dtype == torch.float64 else torch.float32
