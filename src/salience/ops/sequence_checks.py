"""Argument checks that the sequence operators share. Each error is one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_sequences(mask: Tensor | None, seq_idx: Tensor | None, x: Tensor, name: str) -> None:
    """Raise ValueError unless both are None or (B, L) on x's device, mask bool and seq_idx integer.

    Args:    x: (B, L, ...), the argument called `name`
    """
    for given, value, dtypes in (("mask", mask, (torch.bool,)), ("seq_idx", seq_idx, INTEGERS)):
        if value is None:
            continue
        if value.shape != x.shape[:2]:
            raise ValueError(f"{given} must be (B, L) = {tuple(x.shape[:2])}, not {tuple(value.shape)}.")
        if value.dtype not in dtypes:
            raise ValueError(f"{given} must be {'bool' if given == 'mask' else 'integer'}, not {value.dtype}.")
        check_device(given, value, x, name)


def check_tensor(given: str, value: Tensor | None, form: str, shape: tuple[int, ...], x: Tensor, name: str, *,
                 may_be_complex: bool = False) -> None:  # fmt: skip
    """Raise ValueError unless a tensor is absent, or floating point, of a shape, and on the device of x.

    Args:    form: names of the axes, "{}" for the shape: "(B, D) = {}"   x: the argument called `name`
    """
    if value is None:
        return
    if value.shape != shape:
        raise ValueError(f"{given} must be {form.format(tuple(shape))}, not {tuple(value.shape)}.")
    check_kind(given, value, x, name, may_be_complex=may_be_complex)


def check_kind(given: str, value: Tensor, x: Tensor, name: str, *, may_be_complex: bool = False) -> None:
    """Raise ValueError unless a tensor is floating point and on the device of x, the argument called `name`."""
    if not (value.dtype.is_floating_point or (may_be_complex and value.dtype.is_complex)):
        raise ValueError(f"{given} must be floating point, not {value.dtype}.")
    check_device(given, value, x, name)


def check_device(given: str, value: Tensor, x: Tensor, name: str) -> None:
    """Raise ValueError unless a tensor is on the device of x, the argument called `name`."""
    if value.device != x.device:
        raise ValueError(f"{given} must be on {x.device} as {name} is, not on {value.device}.")
