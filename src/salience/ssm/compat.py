"""The functions of the packages mamba_ssm and causal_conv1d, by their names, arguments and layout (B, D, L).

Code written for those packages runs by changing its import. What is computed, and by which backend, is as in
`salience.selective_scan` and `salience.causal_conv1d`; the transposes are views, and so is what comes back.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from salience.core.gradients import refuse_gradients
from salience.ops.causal_conv1d import causal_conv1d, causal_conv1d_step
from salience.ops.selective_scan import selective_scan, selective_scan_step
from salience.ssm.layers.s6 import whole_number

__all__ = [
    "causal_conv1d_fn", "causal_conv1d_update", "causal_conv1d_varlen_states", "mamba_inner_fn", "selective_scan_fn",
    "selective_state_update",
]  # fmt: skip

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)


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
                           dt_softplus: bool = False, state_batch_indices: Tensor | None = None) -> Tensor:  # fmt: skip
    """mamba_ssm's single decoding step; `state` moves on in place. No autograd.

    Args:    state: (B, D, N)   x, dt, z: (B, D)   A: (D, N)   B, C: (B, N) or (B, G, N)   D, dt_bias: (D,)
             or with heads H before D, in all but B and C
             state_batch_indices: (B,) integer, the row of `state` (slots, D, N) that each row of x has; below 0 for
             padding, whose y is 0
    Returns: y as x
    Raises:  ValueError as `salience.ops.selective_scan.selective_scan_step`
    """
    if state_batch_indices is not None:
        rows, slots = _slots("state_batch_indices", state_batch_indices, len(x), "state", len(state))
        own = state[slots]
        x_own, dt_own, B_own, C_own = (t[rows] for t in (x, dt, B, C))
        z_own = None if z is None else z[rows]
        y = torch.zeros_like(x)
        if len(rows):
            y[rows] = selective_state_update(own, x_own, dt_own, A, B_own, C_own, D, z_own, dt_bias, dt_softplus)
            state[slots] = own
        return y
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
                         activation: str | None = None, cache_seqlens: Tensor | None = None,
                         conv_state_indices: Tensor | None = None) -> Tensor:  # fmt: skip
    """causal_conv1d's decoding step, for one input or several; `conv_state` moves on in place. No autograd.

    Args:    x: (B, D) or (B, D, L)   conv_state: (B, D, S), the last S inputs, S at least W - 1
             weight, bias, activation: as in `causal_conv1d_fn`
             cache_seqlens: (B,) integer, inputs seen before; then conv_state is a ring that begins again after S
             conv_state_indices: (B,) integer, the row of conv_state (slots, D, S) that each row of x has; below 0 for
             padding, whose y is 0
    Returns: y as x
    Raises:  ValueError as `salience.causal_conv1d`, for a conv_state that does not fit, for a cache_seqlens of no whole
             numbers, and for indices of rows that are not there or of one row twice
    """
    if conv_state_indices is not None:
        rows, slots = _slots("conv_state_indices", conv_state_indices, len(x), "conv_state", len(conv_state))
        own, y = conv_state[slots], torch.zeros_like(x)
        if len(rows):
            seen = None if cache_seqlens is None else _check_whole("cache_seqlens", cache_seqlens, len(x))[rows]
            with torch.no_grad():
                y[rows] = causal_conv1d_update(x[rows], own, weight, bias, activation, seen)
            conv_state[slots] = own
        return y
    kept, before = conv_state.shape[-1], weight.shape[-1] - 1
    if conv_state.dim() != 3 or kept < before or conv_state.shape[:2] != x.shape[:2]:
        wanted = f"(B, D, S) with (B, D) = {tuple(x.shape[:2])} as x and S at least {before}"
        raise ValueError(f"conv_state must be {wanted}, not {tuple(conv_state.shape)}.")
    if cache_seqlens is not None:
        _check_whole("cache_seqlens", cache_seqlens, len(x))
    activation, spare = _activation(activation), kept - before
    refuse_gradients("causal_conv1d_update")
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


@torch.no_grad()
def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last inputs of each of several sequences packed one after the other. No autograd.

    Args:    x: (tokens, D)   cu_seqlens: (B + 1,) integer, where each begins and the last ends, from 0 on
             state_len: S, at least 1, how many of each
    Returns: (B, D, S) in x.dtype, the last input last; zeros before a sequence's beginning
    Raises:  ValueError for shapes that disagree, and places that fall or lie outside x
    """
    if x.dim() != 2:
        raise ValueError(f"x must be (tokens, D), not {tuple(x.shape)}.")
    whole_number("state_len", state_len)
    if cu_seqlens.dim() != 1 or len(cu_seqlens) == 0 or cu_seqlens.dtype not in _WHOLE:
        raise ValueError(
            f"cu_seqlens must be (B + 1,) of whole numbers, not {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}."
        )
    ends = cu_seqlens.to(torch.int64)
    if int(ends[0]) < 0 or int(ends[-1]) > len(x) or bool((ends[1:] < ends[:-1]).any()):
        raise ValueError(
            f"cu_seqlens must rise from 0 to at most {len(x)}, the tokens of x, not {ends.tolist()!s:.80}."
        )
    at = ends[1:, None] + torch.arange(-state_len, 0, device=x.device)  # (B, S)
    inside = at >= ends[:-1, None]
    rows = F.pad(x, (0, 0, 0, 1))[at.where(inside, len(x))]  # (B, S, D), zeros where nothing is
    return rows.transpose(1, 2)


def mamba_inner_fn(xz: Tensor, conv1d_weight: Tensor, conv1d_bias: Tensor | None, x_proj_weight: Tensor,
                   delta_proj_weight: Tensor, out_proj_weight: Tensor, out_proj_bias: Tensor | None, A: Tensor,
                   B: Tensor | None = None, C: Tensor | None = None, D: Tensor | None = None,
                   delta_bias: Tensor | None = None, B_proj_bias: Tensor | None = None,
                   C_proj_bias: Tensor | None = None, delta_softplus: bool = True, checkpoint_lvl: int = 1,
                   b_rms_weight: Tensor | None = None, c_rms_weight: Tensor | None = None,
                   dt_rms_weight: Tensor | None = None, b_c_dt_rms_eps: float = 1e-6) -> Tensor:  # fmt: skip
    """mamba_ssm's whole block behind its first projection: convolution, selection, scan, gate, last projection.

    Args:    xz: (B, 2 D, L)   conv1d_weight: (D, 1, W)   conv1d_bias, delta_bias: (D,)
             x_proj_weight: (R + 2N, D), twice as many rows for B and C where A is complex   delta_proj_weight: (D, R)
             out_proj_weight: (out, D)   out_proj_bias: (out,)   A: (D, N)   D: (D,)
             B, C: as in `selective_scan_fn`; None: what x_proj_weight selects, B_proj_bias, C_proj_bias (N,) added
             checkpoint_lvl: 0 or 1, what the package's own kernel keeps for the way back; the same here
             b_rms_weight, c_rms_weight: (N,), of an RMS norm of B and C   dt_rms_weight: (D,), of one of delta, before
             its bias   b_c_dt_rms_eps: theirs
    Returns: (B, L, out), differentiable
    Raises:  ValueError for shapes that disagree, as `causal_conv1d_fn` and `selective_scan_fn` do
    """
    if xz.dim() != 3 or xz.shape[1] % 2:
        raise ValueError(f"xz must be (B, 2 D, L), not {tuple(xz.shape)}.")
    if conv1d_weight.dim() != 3 or conv1d_weight.shape[1] != 1:
        raise ValueError(f"conv1d_weight must be (D, 1, W), not {tuple(conv1d_weight.shape)}.")
    if checkpoint_lvl not in (0, 1):
        raise ValueError(f"checkpoint_lvl must be 0 or 1, not {checkpoint_lvl!r}.")
    x, z = xz.chunk(2, dim=1)  # (B, D, L)
    rank, states = delta_proj_weight.shape[1], A.shape[-1] * (2 if A.is_complex() else 1)
    if x_proj_weight.shape != (rank + 2 * states, x.shape[1]):
        wanted = (rank + 2 * states, x.shape[1])
        raise ValueError(f"x_proj_weight must be (R + 2N, D) = {wanted}, not {tuple(x_proj_weight.shape)}.")
    u = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    assert isinstance(u, Tensor)
    selected = F.linear(u.transpose(1, 2), x_proj_weight)  # (B, L, R + 2N)
    low, selected_B, selected_C = torch.split(selected, [rank, states, states], dim=-1)
    delta = _normed(F.linear(low, delta_proj_weight), dt_rms_weight, b_c_dt_rms_eps)  # (B, L, D)
    B = _selected("B", B, selected_B, B_proj_bias, b_rms_weight, b_c_dt_rms_eps, A)
    C = _selected("C", C, selected_C, C_proj_bias, c_rms_weight, b_c_dt_rms_eps, A)
    y = selective_scan_fn(u, delta.transpose(1, 2), A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def _selected(name: str, given: Tensor | None, values: Tensor, bias: Tensor | None, norm: Tensor | None, eps: float,
              A: Tensor) -> Tensor:  # fmt: skip
    """B or C as given, or the selected one (B, L, N, twice N with a complex A) as (B, N, L or 2 L)."""
    if given is not None:
        if norm is not None or bias is not None:
            both = f"{name.lower()}_rms_weight and {name}_proj_bias"
            raise ValueError(f"{both} must be None where {name} is given: they belong to the selected one.")
        return given
    values = values if bias is None else values + bias.to(values.dtype)
    if not A.is_complex():
        return _normed(values, norm, eps).transpose(1, 2)
    if norm is not None:
        raise ValueError("b_rms_weight and c_rms_weight must be None with a complex A.")
    return values.reshape(*values.shape[:2], -1, 2).transpose(1, 2).flatten(2)  # real and imaginary side by side


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """The RMS norm over the last axis, its mean in float32 at least."""
    if weight is None:
        return x
    wide = x if x.dtype == torch.float64 else x.float()
    return (F.rms_norm(wide, wide.shape[-1:], None, eps) * weight).to(x.dtype)


def _check_whole(name: str, numbers: Tensor, batch: int) -> Tensor:
    """The same. Raises: ValueError unless it is a tensor (batch,) of whole numbers."""
    if not isinstance(numbers, Tensor):
        raise ValueError(f"{name} must be a tensor ({batch},) of whole numbers, not of type {type(numbers).__name__}.")
    if numbers.shape != (batch,) or numbers.dtype not in _WHOLE:
        raise ValueError(f"{name} must be ({batch},) of whole numbers, not {numbers.dtype} {tuple(numbers.shape)}.")
    return numbers


def _slots(name: str, indices: Tensor, batch: int, whose: str, slots: int) -> tuple[Tensor, Tensor]:
    """The rows of the batch that are no padding, and the slots of theirs, both int64."""
    _check_whole(name, indices, batch)
    rows = (indices >= 0).nonzero()[:, 0]
    own = indices[rows].to(torch.int64)
    if bool((own >= slots).any()) or len(torch.unique(own)) < len(own):
        raise ValueError(
            f"{name} must name rows of {whose} from 0 to {slots - 1}, none of them twice, or less than 0 for padding, "
            f"not {indices.tolist()!s:.80}."
        )
    return rows, own


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
