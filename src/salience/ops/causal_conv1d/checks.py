"""What the causal convolution accepts: every refusal is one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTHS = range(2, 9)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None,
          mask: Tensor | None, seq_idx: Tensor | None) -> None:  # fmt: skip
    """ValueError where shapes, dtypes or devices disagree; see `causal_conv1d`."""
    if x.dim() != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (B, L, D) with L at least 1, not {tuple(x.shape)}.")
    batch, length, channels = x.shape
    check_weights(x, weight, bias, activation)
    wanted = (batch, weight.shape[1] - 1, channels)
    if initial_state is not None:
        if initial_state.shape != wanted:
            raise ValueError(f"initial_state must be (B, W - 1, D) = {wanted}, not {tuple(initial_state.shape)}.")
        _check_kind("initial_state", initial_state, x)
    for name, value in (("mask", mask), ("seq_idx", seq_idx)):
        if value is None:
            continue
        if value.shape != (batch, length):
            raise ValueError(f"{name} must be (B, L) = {(batch, length)}, not {tuple(value.shape)}.")
        if (value.dtype != torch.bool) if name == "mask" else (value.dtype not in INTEGERS):
            raise ValueError(f"{name} must be {'bool' if name == 'mask' else 'integer'}, not {value.dtype}.")
        if value.device != x.device:
            raise ValueError(f"{name} must be on {x.device} as x is, not on {value.device}.")


def check_step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """ValueError where shapes, dtypes or devices disagree; see `causal_conv1d_step`."""
    if x.dim() != 2:
        raise ValueError(f"x must be (B, D), not {tuple(x.shape)}.")
    check_weights(x, weight, bias, activation)
    wanted = (x.shape[0], weight.shape[1] - 1, x.shape[1])
    if state.shape != wanted:
        raise ValueError(f"state must be (B, W - 1, D) = {wanted}, not {tuple(state.shape)}.")
    _check_kind("state", state, x)


def check_weights(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """The part that both share; x (..., D)."""
    channels = x.shape[-1]
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be floating point, not {x.dtype}.")
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] not in WIDTHS:
        raise ValueError(f"weight must be (D, W) with D = {channels} and W from 2 to 8, not {tuple(weight.shape)}.")
    _check_kind("weight", weight, x)
    if bias is not None:
        if bias.shape != (channels,):
            raise ValueError(f"bias must be (D,) = ({channels},), not {tuple(bias.shape)}.")
        _check_kind("bias", bias, x)
    if activation is not None and activation != "silu":
        raise ValueError(f"activation must be None or 'silu', not {activation!r}.")


def _check_kind(name: str, value: Tensor, x: Tensor) -> None:
    if not value.dtype.is_floating_point:
        raise ValueError(f"{name} must be floating point, not {value.dtype}.")
    if value.device != x.device:
        raise ValueError(f"{name} must be on {x.device} as x is, not on {value.device}.")
