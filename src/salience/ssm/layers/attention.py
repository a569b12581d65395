"""Attention with rotary positions, one way or both: the mixer that state spaces are compared with.

Letters: B batch, L length, H heads, K = d_model / H numbers a head, T steps kept in a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from salience.core.backend import transformed
from salience.core.gradients import no_gradients
from salience.ssm.layers.layer_state import LayerState
from salience.ssm.layers.projections import blank
from salience.ssm.layers.s6 import check_input, whole_number
from salience.ssm.layers.valid_steps import ScanOrder


@dataclass(eq=False)
class AttentionState(LayerState):
    """Keys and values of the steps so far, each row's valid ones from the front.

    k, v: (B, H, room, K), keys turned already   counts: (B,) int64, valid steps a row
    longest: the largest count   even: whether all counts are that
    """

    k: Tensor
    v: Tensor
    counts: Tensor
    longest: int
    even: bool


class Attention(nn.Module):
    """softmax(q k / sqrt(K)) v, queries and keys turned by their position; one matrix in, one out, no biases.

    A masked step is absent: positions count the valid steps, and its y is 0.

    Source: Vaswani et al., arXiv:1706.03762; Su et al., arXiv:2104.09864 (rotary positions, base 10,000; the halves of
    a head are paired, not its neighbours).

    Args:    d_model: width, a multiple of 2 n_heads   n_heads: H   causal: whether a step sees the later ones too
             backend: taken for the sake of the other layers; torch's scaled_dot_product_attention is the one path
    Raises:  ValueError for sizes that make no sense
    """

    def __init__(self, d_model: int, *, n_heads: int = 4, causal: bool = True, backend: str = "auto") -> None:
        super().__init__()
        self.d_model, self.n_heads = whole_number("d_model", d_model), whole_number("n_heads", n_heads)
        if d_model % (2 * n_heads):
            raise ValueError(f"d_model must be a multiple of {2 * n_heads} for {n_heads} heads, not {d_model}.")
        self.causal, self.backend = causal, backend
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        state: Any = None,
        return_state: bool = False,
        reverse: bool = False,
    ) -> Any:
        """Process a sequence, or the next chunk of one.

        Args:    x: (B, L, d_model)   mask: (B, L) bool, True for valid steps; a masked one is absent, wherever it is
                 state: of the chunk before, left as it is   reverse: from the last step to the first
        Returns: y (B, L, d_model); with return_state also the state after x, differentiable
        Raises:  ValueError for shapes or dtypes that disagree, or a state where causal is False
        """
        check_input(x, self.d_model, mask)
        if state is not None or return_state:
            self._streams()
        order = ScanOrder(mask, reverse)
        q, k, v = self._turned(order.apply(x), None if state is None else state.counts)
        y, after = self._attend(q, k, v, order.counts, state, return_state)
        y = order.undo(self.out_proj(y.transpose(1, 2).flatten(2)))  # (B, L, d_model)
        return (y, after) if return_state else y

    @no_gradients
    def step(self, x: Tensor, state: Any) -> Tensor:
        """One more step: x (B, d_model) -> y (B, d_model); `state` moves on in place. No gradients."""
        self._streams()
        q, k, v = self._turned(x[:, None], state.counts)
        y: Tensor = self.out_proj(self._attend_one(q, k, v, state).flatten(1))
        return y

    def init_state(self, batch: int, *, dtype: torch.dtype | None = None) -> Any:
        """The state before the first step: no keys yet."""
        self._streams()
        weight = blank(self.in_proj, self)
        none = weight.new_zeros(batch, self.n_heads, 0, self.d_model // self.n_heads, dtype=dtype)
        return AttentionState(none, none, weight.new_zeros(batch, dtype=torch.int64), 0, True)

    def _turned(self, x: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, L, d_model) -> q, k, v (B, H, L, K); positions begin at `start` (B,), 0 if None."""
        q, k, v = self.in_proj(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        positions = torch.arange(x.shape[1], device=x.device)[None]  # (1 or B, L)
        cos, sin = angles(positions if start is None else positions + start[:, None], q.shape[-1], q.dtype)
        return turn(q, cos, sin), turn(k, cos, sin), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None, state: AttentionState | None,
                return_state: bool) -> tuple[Tensor, AttentionState | None]:  # fmt: skip
        """y (B, H, L, K) of rows whose first `counts` steps are valid (all if None), and the state after them."""
        rows, length = q.shape[0], q.shape[2]
        if state is None:
            if self.causal:  # what lies behind a row's valid steps is later than all of them
                y = attend(q, k, v, is_causal=True)
            else:
                y = attend(q, k, v, attn_mask=seen(counts, length, q.device))
            begun = None
        else:
            k, v = _append(state, k, v)
            at = torch.arange(length, device=q.device) + state.counts[:, None]  # (B, L)
            before = torch.arange(k.shape[2], device=q.device) <= at[..., None]  # (B, L, T)
            y = attend(q, k, v, attn_mask=before[:, None])
            begun = state.counts
        if not return_state:
            return y, None
        new = torch.full((rows,), length, device=q.device) if counts is None else counts
        new = new if begun is None else new + begun
        return y, AttentionState(k, v, new, int(new.max()), bool((new == new[0]).all()))

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor, state: AttentionState) -> Tensor:
        """y (B, H, 1, K); the step's key and value go into the state, whose room doubles when it is full."""
        if state.longest == state.k.shape[2]:
            more = (0, 0, 0, max(16, state.longest))
            state.k, state.v = F.pad(state.k, more), F.pad(state.v, more)
        if state.even:
            state.k[:, :, state.longest], state.v[:, :, state.longest] = k[:, :, 0], v[:, :, 0]
            mask = None
        else:
            put(state.k, state.counts, k)
            put(state.v, state.counts, v)
            mask = (torch.arange(state.longest + 1, device=q.device) <= state.counts[:, None])[:, None, None]
        state.counts += 1
        state.longest += 1
        k, v = state.k[:, :, : state.longest], state.v[:, :, : state.longest]
        return attend(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask)

    def _streams(self) -> None:
        if not self.causal:
            raise ValueError("state must be left out: an attention that sees later steps (causal=False) has none.")


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """torch's scaled_dot_product_attention; where it is transformed in a form that has every rule."""
    if not transformed():
        return F.scaled_dot_product_attention(q, k, v, **options)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, **options)


def put(kept: Tensor, places: Tensor, new: Tensor) -> None:
    """kept (B, H, T, K) at each row's place (B,) becomes new (B, H, 1, K).

    Not kept[rows, :, places] = ..: under vmap torch (2.13) then writes to other places.
    """
    rows = torch.arange(places.shape[0], device=places.device)
    kept.transpose(1, 2)[rows, places] = new[:, :, 0].to(kept.dtype)


def angles(positions: Tensor, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1 or B, 1, L, width / 2) of positions (1 or B, L); float64 where dtype is, float32 before."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rates = 10_000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=wide) / width)
    turned = positions[:, None, :, None].to(wide) * rates
    return turned.cos().to(dtype), turned.sin().to(dtype)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, H, L, K), its halves as real and imaginary parts, times exp(i position rate)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def seen(counts: Tensor | None, length: int, device: torch.device) -> Tensor | None:
    """(B, 1, 1, L): which keys there are; a row without any sees all, for its y is thrown away and mustn't be NaN."""
    if counts is None:
        return None
    there = torch.arange(length, device=device) < counts[:, None]
    return (there | (counts == 0)[:, None])[:, None, None]


def _append(state: AttentionState, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H, T + L, K) with the new ones right behind each row's old ones."""
    past = state.longest
    old = [x[:, :, :past].to(k.dtype) for x in (state.k, state.v)]
    if state.even:
        return torch.cat([old[0], k], dim=2), torch.cat([old[1], v], dim=2)
    at = (torch.arange(k.shape[2], device=k.device) + state.counts[:, None])[:, None, :, None].expand_as(k)
    wide = [F.pad(x, (0, 0, 0, k.shape[2])) for x in old]
    return wide[0].scatter(2, at, k), wide[1].scatter(2, at, v)
