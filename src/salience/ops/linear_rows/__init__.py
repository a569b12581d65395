"""A linear layer on a few rows, as decoding calls it: bound by reading the weights once.

BLAS is made for many rows. For one row, on an AMD EPYC with MKL, torch's product reads 17 GB/s a core where the memory
gives 45. For two or three rows it reads the weights once for each.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.backend import eager, pick

# Above these torch's product, which then reuses what it has read, is faster (measured on Zen 4 with MKL and oneDNN).
MOST_ROWS = {torch.float32: 8, torch.bfloat16: 1}
ONEDNN_LEAST_ROWS = 32  # from here on oneDNN's product, on machines where that is faster than MKL's
HALVES = (torch.bfloat16, torch.float16)


def linear_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """x weight^T + bias, as `torch.nn.functional.linear`, which computes it except in three cases on the CPU.

    Few rows without gradients (decoding) go through a kernel that reads the weights once.
    Many float32 rows without gradients (prefill) go through oneDNN where that is faster than MKL: `onednn_is_faster`.
    Half precision that the CPU cannot multiply is multiplied on copies in float32: torch's own loops take 4 to 40
    times as long (Zen 3, 8 to 512 rows).

    Args:    x: (..., K)   weight: (O, K)   bias: (O,)   backend: "auto" and "cpu" allow these cases, all others are
             torch's
    Returns: (..., O) in x.dtype, sums in float32
    Raises:  as torch's linear does
    """
    allowed = backend in ("auto", "cpu") and plain_tensors(x, weight, bias)
    if not allowed or pick("linear_rows", (x, weight), backend) != "cpu":
        return F.linear(x, weight, bias)
    if _few_rows(x, weight, bias):
        from salience.ops.linear_rows.cpu import forward

        return forward(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], weight.shape[0])
    if _many_rows(x, weight, bias) and onednn_is_faster():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    if x.dtype in HALVES and not _native(x.dtype):
        wide = (x.float(), weight.float(), None if bias is None else bias.float())
        return linear_rows(*wide, backend=backend).to(x.dtype)
    return F.linear(x, weight, bias)


@cache
def onednn_is_faster() -> bool:
    """Whether torch's float32 product is MKL's on an AMD CPU, where oneDNN's is faster.

    oneDNN takes 0.82 to 0.91 of MKL's time for a forward of mamba-130m's shape with 8 layers, 32 to 512 tokens (Zen 4),
    and 0.88 for the whole shape with the AVX2 code of both (Zen 5).
    """
    from llvmlite import binding

    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    amd: bool = binding.get_host_cpu_name().startswith("znver")
    return amd and libraries and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def plain_tensors(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether all are plain CPU tensors of one dtype, with no tracing, autocast or transform in force."""
    given = (x, weight) if bias is None else (x, weight, bias)
    return (
        eager()
        and all(each.dtype == x.dtype and each.device.type == "cpu" for each in given)
        and all(type(each) in (Tensor, nn.Parameter) for each in given)  # other classes may multiply in their own way
        and not torch.is_autocast_enabled("cpu")
    )


def _few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel for few rows takes these tensors and is faster than torch."""
    return (
        0 < x.numel() <= _most_rows(x.dtype) * x.shape[-1]
        and _fits(x, weight, bias)
        and weight.shape[1] == weight.stride(0)  # rows one after another
        and (weight.shape[1] == 1 or weight.stride(1) == 1)
    )


def _many_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN's product takes these tensors; it checks no shapes."""
    return (
        x.dtype == torch.float32
        and math.prod(x.shape[:-1]) >= ONEDNN_LEAST_ROWS
        and _fits(x, weight, bias)
        and weight.numel() > 0
    )


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the shapes are right and no gradient is needed."""
    return (
        weight.ndim == 2
        and weight.shape[1] == x.shape[-1]
        and (bias is None or bias.shape == weight.shape[:1])
        and not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)))
    )


@cache
def _most_rows(dtype: torch.dtype) -> int:
    few = MOST_ROWS[torch.float32]
    return few if dtype in HALVES and not _native(dtype) else MOST_ROWS.get(dtype, 0)


@cache
def _native(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies matrices of this half precision here; True without oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return True
    ask = torch.ops.mkldnn
    return bool(ask._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else ask._is_mkldnn_fp16_supported())
