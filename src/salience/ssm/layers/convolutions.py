"""A layer's depthwise convolution: its weight read by a kernel, or, where something else computes it, called.

Letters: B batch, L length, E channels, W width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.ops.causal_conv1d import causal_conv1d, causal_conv1d_step
from salience.ssm.layers.projections import is_plain


def convolve(conv: Any, x: Tensor, width: int, *, activation: str | None, backend: str,
             initial_state: Tensor | None = None, mask: Tensor | None = None, seq_idx: Tensor | None = None,
             reverse: bool = False) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`causal_conv1d` with what is a depthwise `nn.Conv1d`, or wraps one; whatever it pads with zeros is cut off.

    Args:    conv: of W = `width` inputs a step   x: (B, L, E)   others: as `causal_conv1d`'s
    Returns: y (B, L, E) and the state after it (B, W - 1, E)
    Raises:  ValueError as `causal_conv1d`
    """
    options: dict[str, Any] = {"initial_state": initial_state, "mask": mask, "seq_idx": seq_idx, "reverse": reverse}
    if is_plain(conv, nn.Conv1d):
        return causal_conv1d(
            x, conv.weight.squeeze(1), conv.bias, activation=activation, return_state=True, backend=backend, **options
        )
    if mask is None and seq_idx is None:
        y, state = _called(conv, x.flip(1) if reverse else x, width, initial_state)
        y = y.flip(1) if reverse else y
    else:
        windows = [causal_conv1d(x, tap, backend=backend, **options) for tap in _taps(x, width)]
        _, state = causal_conv1d(x, _taps(x, width)[0], return_state=True, backend=backend, **options)
        y = called_on_windows(conv, windows)
        if mask is not None:
            y = y.masked_fill(~mask[..., None], 0)
    return (F.silu(y) if activation == "silu" else y), state


def convolve_step(conv: Any, state: Tensor, x: Tensor, width: int, *, activation: str | None, backend: str) -> Tensor:
    """One more step, `causal_conv1d_step` with a module: x (B, E) -> y (B, E); state (B, W - 1, E) moves in place."""
    if is_plain(conv, nn.Conv1d):
        return causal_conv1d_step(state, x, conv.weight.squeeze(1), conv.bias, activation=activation, backend=backend)
    y, after = _called(conv, x[:, None], width, state)
    state.copy_(after)
    return (F.silu(y) if activation == "silu" else y)[:, 0]


def called_on_windows(conv: Any, windows: list[Tensor]) -> Tensor:
    """(B, L, E): the module on each step's own inputs, W tensors (B, L, E), the oldest first."""
    batch, length, channels = windows[0].shape
    one = torch.stack(windows, dim=-1).flatten(0, 1)  # (B L, E, W)
    return _middle(conv(one), 1).reshape(batch, length, channels)


def _called(conv: Any, x: Tensor, width: int, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (B, L, E) of the module, called once, and the last W - 1 inputs."""
    if before is None:
        before = x.new_zeros(x.shape[0], width - 1, x.shape[2])
    whole = torch.cat([before.to(x.dtype), x], dim=1)
    y = _middle(conv(whole.transpose(1, 2)), x.shape[1])
    return y.transpose(1, 2), whole[:, x.shape[1] :]


def _middle(y: Tensor, length: int) -> Tensor:
    """(B, E, length + 2 p) -> (B, E, length): without what came of p zeros on either side."""
    padding = (y.shape[-1] - length) // 2
    return y[..., padding : padding + length]


def _taps(x: Tensor, width: int) -> Tensor:
    """(W, E, W): weights that give back one input each, the oldest first."""
    return torch.eye(width, dtype=x.dtype, device=x.device)[:, None].expand(width, x.shape[2], width)
