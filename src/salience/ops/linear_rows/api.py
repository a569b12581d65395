"""`linear_rows`: torch's linear layer, through a kernel of our own where that reads the weights faster."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.backend import eager, pick

# Beyond these torch's product, which then reuses what it has read, is faster (measured on Zen 4 with MKL and oneDNN).
MOST_ROWS = {torch.float32: 8, torch.bfloat16: 1}
LEAST_ROWS = 32  # from here on the kernel for many rows, on machines where that is faster
HALVES = (torch.bfloat16, torch.float16)


def linear_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """x weight^T + bias, as `torch.nn.functional.linear`; many rows, gradients, autocast and other devices are its own.

    Many rows without gradients go through a kernel of our own on machines where BLAS is slower (`cpu_many.worth`).
    Where the CPU has no product of half precision, many rows are multiplied on copies in float32: torch's own loops
    take 4 to 40 times as long (Zen 3, 8 to 512 rows).

    Args:    x: (..., K)   weight: (O, K)   bias: (O,)   backend: "auto" and "cpu" may take the kernel, all others are
             torch's
    Returns: (..., O) in x.dtype, sums in float32
    Raises:  as torch's linear does
    """
    ours = backend in ("auto", "cpu") and plain_tensors(x, weight, bias)
    if not ours or pick("linear_rows", (x, weight), backend) != "cpu":
        return F.linear(x, weight, bias)
    rows = math.prod(x.shape[:-1])
    if _suits(x, weight, bias):
        from salience.ops.linear_rows.cpu import forward

        return forward(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], weight.shape[0])
    if _without_gradients(x, weight, bias) and x.shape[-1:] == weight.shape[1:] and many_suit(rows, weight, bias):
        from salience.ops.linear_rows.cpu_many import product

        flat = x.reshape(rows, x.shape[-1])
        flat = flat if flat.stride(1) == 1 else flat.contiguous()
        return product(flat, weight, bias).view(*x.shape[:-1], weight.shape[0])
    if x.dtype in HALVES and not _native(x.dtype):
        wide = (x.float(), weight.float(), None if bias is None else bias.float())
        return linear_rows(*wide, backend=backend).to(x.dtype)
    return F.linear(x, weight, bias)


def many_suit(rows: int, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether the kernel for many rows takes so many and this layer, and this machine is one where it is faster."""
    if (
        rows < LEAST_ROWS
        or weight.dtype != torch.float32
        or weight.ndim != 2
        or weight.numel() == 0
        or weight.stride(1) != 1
        or not (bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous()))
    ):
        return False
    from salience.ops.linear_rows.cpu_many import worth

    return worth()


def plain_tensors(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are tensors of one dtype on the CPU and nobody listens in; what disagrees is left to torch."""
    given = (x, weight) if bias is None else (x, weight, bias)
    return (
        eager()
        and all(each.dtype == x.dtype and each.device.type == "cpu" for each in given)
        and all(type(each) in (Tensor, nn.Parameter) for each in given)  # others multiply in ways of their own
        and not torch.is_autocast_enabled("cpu")
    )


def _suits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel can do it and is worth it."""
    return (
        0 < x.numel() <= _most_rows(x.dtype) * x.shape[-1]
        and weight.ndim == 2
        and weight.shape[1] == x.shape[-1] == weight.stride(0)  # rows one after another
        and (weight.shape[1] == 1 or weight.stride(1) == 1)
        and (bias is None or bias.shape == weight.shape[:1])
        and _without_gradients(x, weight, bias)
    )


def _without_gradients(*given: Tensor | None) -> bool:
    return not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given))


@cache
def _most_rows(dtype: torch.dtype) -> int:
    few = MOST_ROWS[torch.float32]
    return few if dtype in HALVES and not _native(dtype) else MOST_ROWS.get(dtype, 0)


@cache
def _native(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies matrices of this half precision here; True where there is no oneDNN to ask."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return True
    ask = torch.ops.mkldnn
    return bool(ask._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else ask._is_mkldnn_fp16_supported())
