"""The functions of the packages mamba_ssm and causal_conv1d, by their names, arguments and layout (B, D, L).

Code written for those packages runs by changing its import. What is computed, and by which backend, is as in
`salience.selective_scan` and `salience.causal_conv1d`; the transposes are views, and so is what comes back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from salience.ops.causal_conv1d import causal_conv1d, causal_conv1d_step
from salience.ops.selective_scan import selective_scan, selective_scan_step

__all__ = ["causal_conv1d_fn", "causal_conv1d_update", "selective_scan_fn", "selective_state_update"]


def selective_scan_fn(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
                      z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
                      return_last_state: bool = False) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """mamba_ssm's selective scan.

    Args:    u, delta, z: (B, D, L)   A: (D, N), real or complex   D, delta_bias: (D,)
             B, C: (B, N, L), (B, G, N, L), or (D, N), the same for every row and step. With a complex A the first two
             hold real and imaginary parts side by side (2 L long) and the last is complex
    Returns: y (B, D, L) in u.dtype; with return_last_state also the state (B, D, N), complex with a complex A.
             Differentiable as `salience.selective_scan`; a complex A takes the reference path
    Raises:  ValueError as `salience.selective_scan`, and for a B or C of no such shape
    """
    if u.dim() != 3:
        raise ValueError(f"u must be (B, D, L), not {tuple(u.shape)}.")
    B, C = _same_groups(_matrix("B", B, u, A), _matrix("C", C, u, A))
    delta, gate = (x if x is None else _turned(name, x) for name, x in (("delta", delta), ("z", z)))  # type: ignore[assignment]
    y, state = selective_scan(
        u.transpose(1, 2), delta, A, B, C, D, z=gate, dt_bias=delta_bias, dt_softplus=delta_softplus, return_state=True
    )
    y = y.transpose(1, 2)
    return (y, state) if return_last_state else y


def selective_state_update(state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
                           D: Tensor | None = None, z: Tensor | None = None, dt_bias: Tensor | None = None,
                           dt_softplus: bool = False) -> Tensor:  # fmt: skip
    """mamba_ssm's single decoding step; `state` moves on in place. No autograd.

    Args:    state: (B, D, N)   x, dt, z: (B, D)   A: (D, N)   B, C: (B, N) or (B, G, N)   D, dt_bias: (D,)
             or with heads H before D, in all but B and C
    Returns: y as x
    Raises:  ValueError as `salience.ops.selective_scan.selective_scan_step`
    """
    if state.dim() != 4:
        return selective_scan_step(state, x, dt, A, B, C, D, z=z, dt_bias=dt_bias, dt_softplus=dt_softplus)
    flat = state.flatten(1, 2)  # a copy where heads and channels do not lie one after the other
    x, dt, gate = (t if t is None else t.flatten(1) for t in (x, dt, z))  # type: ignore[assignment]
    D, dt_bias = (t if t is None else t.flatten() for t in (D, dt_bias))
    y = selective_scan_step(flat, x, dt, A.flatten(0, 1), B, C, D, z=gate, dt_bias=dt_bias, dt_softplus=dt_softplus)
    if flat.data_ptr() != state.data_ptr():
        state.copy_(flat.view(state.shape))
    return y.view(state.shape[:3])


def causal_conv1d_fn(x: Tensor, weight: Tensor, bias: Tensor | None = None, seq_idx: Tensor | None = None,
                     initial_states: Tensor | None = None, return_final_states: bool = False,
                     final_states_out: Tensor | None = None,
                     activation: str | None = None) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """causal_conv1d's depthwise convolution.

    Args:    x: (B, D, L)   weight: (D, W)   bias: (D,)   seq_idx: (B, L) integer, below 0 for padding, whose y is 0
             initial_states: (B, D, W - 1)   final_states_out: (B, D, W - 1), filled and given back
             activation: None, "silu" or "swish", which is the same
    Returns: y (B, D, L); with return_final_states also the last W - 1 inputs (B, D, W - 1)
    Raises:  ValueError as `salience.causal_conv1d`
    """
    if x.dim() != 3:
        raise ValueError(f"x must be (B, D, L), not {tuple(x.shape)}.")
    initial = None if initial_states is None else _turned("initial_states", initial_states)
    y, state = causal_conv1d(
        x.transpose(1, 2), weight, bias, activation=_activation(activation), initial_state=initial, seq_idx=seq_idx,
        return_state=True,
    )  # fmt: skip
    y, state = y.transpose(1, 2), state.transpose(1, 2)
    if seq_idx is not None:
        y = y.masked_fill(seq_idx[:, None] < 0, 0)
    if not return_final_states:
        return y
    return y, state if final_states_out is None else final_states_out.copy_(state)


def causal_conv1d_update(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None = None,
                         activation: str | None = None, cache_seqlens: Tensor | None = None) -> Tensor:  # fmt: skip
    """causal_conv1d's decoding step, for one input or several; `conv_state` moves on in place. No autograd.

    Args:    x: (B, D) or (B, D, L)   conv_state: (B, D, S), the last S inputs, S at least W - 1
             weight, bias, activation: as in `causal_conv1d_fn`
             cache_seqlens: (B,) integer, inputs seen before; then conv_state is a ring that begins again after S
    Returns: y as x
    Raises:  ValueError as `salience.causal_conv1d`, and for a conv_state that is too short
    """
    kept, before = conv_state.shape[-1], weight.shape[-1] - 1
    if conv_state.dim() != 3 or kept < before:
        raise ValueError(f"conv_state must be (B, D, S) with S at least {before}, not {tuple(conv_state.shape)}.")
    activation, spare = _activation(activation), kept - before
    with torch.no_grad():
        if x.dim() == 2 and cache_seqlens is None:
            # y first: the step refuses bad input before anything has moved.
            oldest = conv_state[..., 1 : spare + 1].clone() if spare else None
            y = causal_conv1d_step(conv_state[..., spare:].transpose(1, 2), x, weight, bias, activation=activation)
            if oldest is not None:
                conv_state[..., :spare] = oldest
            return y
        new = x[..., None] if x.dim() == 2 else x
        if cache_seqlens is None:
            seen = conv_state[..., spare:]
        else:
            seen = conv_state.gather(2, _ring(cache_seqlens, -before, 0, conv_state))
        y = causal_conv1d(
            new.transpose(1, 2), weight, bias, activation=activation, initial_state=seen.transpose(1, 2)
        ).transpose(1, 2)
        if cache_seqlens is None:
            conv_state.copy_(torch.cat([conv_state, new.to(conv_state.dtype)], dim=2)[..., -kept:])
        else:
            latest = new[..., -kept:].to(conv_state.dtype)
            first = new.shape[2] - latest.shape[2]
            conv_state.scatter_(2, _ring(cache_seqlens, first, new.shape[2], conv_state), latest)
    return y[..., 0] if x.dim() == 2 else y


def _matrix(name: str, x: Tensor, u: Tensor, A: Tensor) -> Tensor:
    """B or C as (B, L, G, N), of any of the package's shapes."""
    batch, channels, length = u.shape
    states = A.shape[-1]
    if x.dim() == 2:
        if x.shape != (channels, states):
            raise ValueError(f"{name} must be (D, N) = {(channels, states)}, not {tuple(x.shape)}.")
        return x.expand(batch, length, channels, states)
    long = 2 * length if A.is_complex() else length
    fits = x.dim() in (3, 4) and x.shape[0] == batch and x.shape[-2:] == (states, long)
    if not fits:
        raise ValueError(
            f"{name} must be (B, N, L) = {(batch, states, long)}, groups before N, or (D, N), not {tuple(x.shape)}."
        )
    grouped = x[:, None] if x.dim() == 3 else x
    if A.is_complex():
        wide = grouped if grouped.dtype == torch.float64 else grouped.float()
        grouped = torch.view_as_complex(wide.reshape(*wide.shape[:-1], length, 2))
    return grouped.permute(0, 3, 1, 2)


def _same_groups(B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The package lets B and C differ in their number of groups."""
    groups = B.shape[2], C.shape[2]
    if groups[0] == groups[1] or 0 in groups:
        return B, C
    both = math.lcm(*groups)
    return B.repeat_interleave(both // groups[0], dim=2), C.repeat_interleave(both // groups[1], dim=2)


def _ring(seen: Tensor, first: int, last: int, state: Tensor) -> Tensor:
    """(B, D, last - first): where in a ring of S the inputs first .. last lie, counted from those seen before."""
    steps = torch.arange(first, last, device=state.device)
    places = (seen.to(torch.int64)[:, None] + steps) % state.shape[2]
    return places[:, None].expand(-1, state.shape[1], -1)


def _turned(name: str, x: Tensor) -> Tensor:
    if x.dim() != 3:
        raise ValueError(f"{name} must have three axes, (B, D, ...), not {tuple(x.shape)}.")
    return x.transpose(1, 2)


def _activation(name: str | None) -> str | None:
    return "silu" if name == "swish" else name
