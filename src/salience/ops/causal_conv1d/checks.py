"""Argument checks of the causal convolution. Each error is one sentence."""

from __future__ import annotations

from torch import Tensor

from salience.ops.causal_conv1d.conv_inputs import ConvInputs
from salience.ops.sequence_checks import check_floating, check_sequences

WIDTHS = range(2, 9)


def check(given: ConvInputs, activation: str | None) -> None:
    """Raise ValueError if shapes, dtypes or devices disagree; see `causal_conv1d`."""
    x, weight, bias, initial_state, mask, seq_idx, _, _ = given
    if x.dim() != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (B, L, D) with L at least 1, not {tuple(x.shape)}.")
    batch, _, channels = x.shape
    check_weights(x, weight, bias, activation)
    wanted = (batch, weight.shape[1] - 1, channels)
    if initial_state is not None:
        if initial_state.shape != wanted:
            raise ValueError(f"initial_state must be (B, W - 1, D) = {wanted}, not {tuple(initial_state.shape)}.")
        check_floating("initial_state", initial_state, x, "x")
    check_sequences(mask, seq_idx, x, "x")


def check_step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Raise ValueError if shapes, dtypes or devices disagree; see `causal_conv1d_step`."""
    if x.dim() != 2:
        raise ValueError(f"x must be (B, D), not {tuple(x.shape)}.")
    check_weights(x, weight, bias, activation)
    wanted = (x.shape[0], weight.shape[1] - 1, x.shape[1])
    if state.shape != wanted:
        raise ValueError(f"state must be (B, W - 1, D) = {wanted}, not {tuple(state.shape)}.")
    check_floating("state", state, x, "x")


def check_weights(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """The checks that both share. x: (..., D)"""
    channels = x.shape[-1]
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be floating point, not {x.dtype}.")
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] not in WIDTHS:
        raise ValueError(f"weight must be (D, W) with D = {channels} and W from 2 to 8, not {tuple(weight.shape)}.")
    check_floating("weight", weight, x, "x")
    if bias is not None:
        if bias.shape != (channels,):
            raise ValueError(f"bias must be (D,) = ({channels},), not {tuple(bias.shape)}.")
        check_floating("bias", bias, x, "x")
    if activation is not None and activation != "silu":
        raise ValueError(f"activation must be None or 'silu', not {activation!r}.")
