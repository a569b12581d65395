"""Tensors as kernels take them: addresses and byte strides on the CPU, outputs to fill, Triton's current device."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


def address(x: Tensor | None) -> int:
    """Address of the first element; 0 for an absent tensor."""
    return 0 if x is None else x.data_ptr()


def place(x: Tensor | None, dims: int = 0) -> tuple[int, ...]:
    """Address and byte strides; `dims` + 1 zeros for an absent tensor."""
    if x is None:
        return (0,) * (dims + 1)
    size = x.itemsize
    return (x.data_ptr(), *[stride * size for stride in x.stride()])


def output_like(x: Tensor, mask: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """A contiguous output of x's shape. With a mask it is zero, because a kernel does not write masked steps."""
    return (torch.empty if mask is None else torch.zeros)(x.shape, dtype=dtype or x.dtype, device=x.device)


def rows_contiguous(x: Tensor) -> Tensor:
    """x without gradients, its last axis contiguous; other strides stay."""
    x = x.detach()
    return x if x.stride(-1) == 1 else x.contiguous()


def contiguous(x: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    """x without gradients, contiguous, in a dtype; None for an absent tensor."""
    if x is None:
        return None
    x = x if dtype is None or x.dtype == dtype else x.to(dtype)  # `to` takes 4 us even if nothing changes
    return x.detach().contiguous()


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32: the dtype in which sums and states are held."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def current_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Context in which Triton starts kernels on x's device; it uses the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
