"""The causal convolution in plain PyTorch, differentiated by autograd. All other backends are tested against it.

The valid steps of a row are first moved next to each other, in the order of the scan. A window is then W neighbours,
and a neighbour of another sequence counts as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from salience.ops.causal_conv1d.checks import ConvInputs


def forward(given: ConvInputs) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the state after the last step (B, W - 1, D), both in x.dtype; see `causal_conv1d`."""
    x, weight, bias, initial_state, mask, seq_idx, silu, reverse = given
    batch, length, channels = x.shape
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    before = weight.shape[1] - 1
    if reverse:
        x = x.flip(1)
        mask, seq_idx = (None if a is None else a.flip(1) for a in (mask, seq_idx))
    if initial_state is None:
        initial_state = x.new_zeros(batch, before, channels)
    valid = torch.ones(batch, length, dtype=torch.bool, device=x.device) if mask is None else mask
    order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)  # (B, L): the valid steps first
    count = valid.sum(1, keepdim=True)  # (B, 1)
    x = torch.where(valid[..., None], x, 0)  # masked steps must have no effect, even if they are NaN
    near = x.gather(1, order[..., None].expand_as(x))
    near = torch.cat([initial_state.to(x.dtype), near], dim=1)  # (B, W - 1 + L, D)
    sequence = _sequences(seq_idx, order, before)  # (B, W - 1 + L)

    y = x.new_zeros(batch, length, channels, dtype=compute)
    for k in range(weight.shape[1]):
        same = sequence[:, k : k + length] == sequence[:, before:]
        y = y + torch.where(same[..., None], near[:, k : k + length], 0).to(compute) * weight[:, k].to(compute)
    if bias is not None:
        y = y + bias.to(compute)
    if silu:
        y = F.silu(y)
    place = (valid.cumsum(1) - 1).clamp_min(0)  # where a valid step went
    y = torch.where(valid[..., None], y.gather(1, place[..., None].expand_as(y)), 0).to(x.dtype)

    last = count + torch.arange(before, device=x.device)  # (B, W - 1): the places before the first one not used
    same = sequence.gather(1, last) == sequence.gather(1, count + before - 1)
    state = torch.where(same[..., None], near.gather(1, last[..., None].expand(-1, -1, channels)), 0)
    return (y.flip(1) if reverse else y), state


@torch.no_grad()
def step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """y (B, D) of one more input (B, D); `state` (B, W - 1, D) moves on in place."""
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    window = torch.cat([state.to(compute), x[:, None].to(compute)], dim=1)  # (B, W, D)
    y = (window * weight.T.to(compute)).sum(1)
    if bias is not None:
        y = y + bias.to(compute)
    state.copy_(window[:, 1:])
    return (F.silu(y) if silu else y).to(x.dtype)


def _sequences(seq_idx: Tensor | None, order: Tensor, before: int) -> Tensor:
    """(B, before + L): the sequence each step belongs to, valid ones moved together; the initial state to the first."""
    if seq_idx is None:
        return order.new_zeros(order.shape[0], before + order.shape[1])
    moved = seq_idx.gather(1, order)
    changes = (moved[:, 1:] != moved[:, :-1]).cumsum(1)
    return F.pad(changes, (before + 1, 0))
