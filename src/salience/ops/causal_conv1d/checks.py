"""Arguments of the causal convolution, and their checks. Each error is one sentence."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from salience.ops.sequence_checks import check_kind, check_sequences, check_tensor

WIDTHS = range(2, 9)


class ConvInputs(NamedTuple):
    """Tensors and flags of `causal_conv1d`, with its shapes."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None
    mask: Tensor | None
    seq_idx: Tensor | None
    silu: bool
    reverse: bool


def check(given: ConvInputs, activation: str | None) -> None:
    """Raise ValueError if shapes, dtypes or devices disagree; see `causal_conv1d`."""
    x, weight, bias, initial_state, mask, seq_idx, _, _ = given
    if x.dim() != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (B, L, D) with L at least 1, not {tuple(x.shape)}.")
    check_weights(x, weight, bias, activation)
    state = x.shape[0], weight.shape[1] - 1, x.shape[2]
    check_tensor("initial_state", initial_state, "(B, W - 1, D) = {}", state, x, "x")
    check_sequences(mask, seq_idx, x, "x")


def check_step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Raise ValueError if shapes, dtypes or devices disagree; see `causal_conv1d_step`."""
    if x.dim() != 2:
        raise ValueError(f"x must be (B, D), not {tuple(x.shape)}.")
    check_weights(x, weight, bias, activation)
    check_tensor("state", state, "(B, W - 1, D) = {}", (x.shape[0], weight.shape[1] - 1, x.shape[1]), x, "x")


def check_weights(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """The checks that both share. x: (..., D)"""
    channels = x.shape[-1]
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be floating point, not {x.dtype}.")
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] not in WIDTHS:
        raise ValueError(f"weight must be (D, W) with D = {channels} and W from 2 to 8, not {tuple(weight.shape)}.")
    check_kind("weight", weight, x, "x")
    check_tensor("bias", bias, "(D,) = {}", (channels,), x, "x")
    if activation is not None and activation != "silu":
        raise ValueError(f"activation must be None or 'silu', not {activation!r}.")
