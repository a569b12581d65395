"""Attention in a sliding window with global steps, block by block: time and memory grow with L, not with its square.

Letters: B batch, L length, H heads, K numbers a head, w window, g global steps, n blocks of w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from salience.core.backend import exporting
from salience.ssm.layers.attention import Attention, attend, put, seen
from salience.ssm.layers.layer_state import LayerState
from salience.ssm.layers.projections import blank
from salience.ssm.layers.s6 import whole_number

_Parts = tuple[Tensor, Tensor, Tensor]  # the global steps, the w before, the chunk's own


@dataclass(eq=False)
class WindowState(LayerState):
    """k, v: (B, H, g + w, K), the global steps, then the last w ones, position p at g + p % w   counts: (B,) int64"""

    k: Tensor
    v: Tensor
    counts: Tensor


class WindowedAttention(Attention):
    """As `Attention`, but a step sees the w - 1 before it (and the w - 1 after it), itself, and the g first ones.

    Causal: step i sees j <= i where i - j < w or j < g. Both ways: |i - j| < w, or j < g, or i < g, so that a global
    step sees all. The g first ones are a row's first valid steps. A block of w steps is computed against itself, its
    neighbours and the global steps; what of them a step doesn't see is masked.

    Source: Beltagy, Peters and Cohan, arXiv:2004.05150 (Longformer). Deviation: global steps have no projections of
    their own.

    Args:    d_model, n_heads, causal, backend: as `Attention`   window: w   n_global: g, 0 for none
    Raises:  ValueError for sizes that make no sense
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int = 4,
        window: int = 64,
        n_global: int = 4,
        causal: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, n_heads=n_heads, causal=causal, backend=backend)
        self.window, self.n_global = whole_number("window", window), whole_number("n_global", n_global, least=0)

    def init_state(self, batch: int, *, dtype: torch.dtype | None = None) -> WindowState:
        """The state before the first step, zeros: of one size however long the sequence gets."""
        self._streams()
        weight, room = blank(self.in_proj, self), self.n_global + self.window
        zeros = weight.new_zeros(batch, self.n_heads, room, self.d_model // self.n_heads, dtype=dtype)
        return WindowState(zeros, zeros.clone(), weight.new_zeros(batch, dtype=torch.int64))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None, state: Any,
                return_state: bool) -> tuple[Tensor, Any]:  # fmt: skip
        """As `Attention._attend`, with a `WindowState`."""
        begun = None if state is None else state.counts
        pairs = [
            self._before(new, None if state is None else old, begun)
            for new, old in zip((k, v), (None, None) if state is None else (state.k, state.v), strict=True)
        ]
        (global_k, past_k), (global_v, past_v) = pairs
        y = self._blocks(q, (global_k, past_k, k), (global_v, past_v, v), counts, begun)
        if not self.causal and self.n_global:
            all_there = seen(counts, q.shape[2], q.device)
            few = _extended(q, self.n_global) if exporting() else q[:, :, : self.n_global]
            whole = attend(few, k, v, attn_mask=all_there)
            if exporting():
                at = torch.arange(q.shape[2], device=q.device)[:, None]
                y = torch.where(at < self.n_global, _extended(whole, q.shape[2]), y)
            else:
                y = torch.cat([whole, y[:, :, self.n_global :]], dim=2)
        if not return_state:
            return y, None
        new = torch.full((q.shape[0],), q.shape[2], device=q.device) if counts is None else counts
        total = new if begun is None else new + begun
        kept_k, kept_v = (
            torch.cat([fixed, self._ring(torch.cat([past, each], dim=2), new, total)], dim=2)
            for fixed, past, each in ((global_k, past_k, k), (global_v, past_v, v))
        )
        return y, WindowState(kept_k, kept_v, total)

    def _before(self, new: Tensor, old: Tensor | None, begun: Tensor | None) -> tuple[Tensor, Tensor]:
        """The global steps (B, H, g, K), those among the new ones included, and the w steps before, in order."""
        g, w, length = self.n_global, self.window, new.shape[2]
        if old is None or begun is None:
            empty = new.new_zeros(*new.shape[:2], w, new.shape[3])
            return _extended(new, g), empty
        old = old.to(new.dtype)
        at = torch.arange(g, device=new.device) - begun[:, None]  # (B, g), where in the chunk they are
        inside = ((at >= 0) & (at < length))[:, None, :, None]
        fixed = torch.where(inside, _take(new, at.clamp(0, length - 1)), old[:, :, :g])
        ring = (torch.arange(w, device=new.device) + begun[:, None]) % w
        return fixed, _take(old[:, :, g:], ring)

    def _ring(self, steps: Tensor, new: Tensor, total: Tensor) -> Tensor:
        """The last w of past and chunk (B, H, w + L, K), position p at p % w."""
        at = torch.arange(self.window, device=steps.device)
        last = _take(steps, at + new[:, None])
        slots = ((at + total[:, None]) % self.window)[:, None, :, None].expand_as(last)
        return torch.zeros_like(last).scatter(2, slots, last)

    def _blocks(self, q: Tensor, k: _Parts, v: _Parts, counts: Tensor | None,
                begun: Tensor | None) -> Tensor:  # fmt: skip
        """y (B, H, L, K), each block of queries against the global steps and its neighbourhood."""
        rows, heads, length, wide = q.shape
        n = length // self.window + 2 if exporting() else -(-length // self.window)  # 2 at least: 1 is a case apart
        blocks = _extended(q, n * self.window).reshape(rows * heads, n, self.window, wide)
        near_k, near_v = (self._near(*each, n).flatten(0, 1) for each in (k, v))  # (B H, n, g + 2 or 3 w, K)
        mask = self._mask(n, length, counts, begun, q.device)  # (1 or B, n, w, g + 2 or 3 w)
        if mask.shape[0] > 1:
            mask = mask.repeat_interleave(heads, 0)
        y: Tensor = attend(blocks, near_k, near_v, attn_mask=mask)
        return _extended(y.reshape(rows, heads, n * self.window, wide), length)

    def _near(self, fixed: Tensor, past: Tensor, steps: Tensor, n: int) -> Tensor:
        """(B, H, n, g + 2 or 3 w, K): what each block is computed against."""
        w, around_it = self.window, 2 if self.causal else 3
        joined = torch.cat([past, _extended(steps, (n + around_it - 2) * w)], dim=2)
        tiles = joined.reshape(*joined.shape[:2], n + around_it - 1, w, joined.shape[3])
        around = [tiles[:, :, i : i + n] for i in range(around_it)]
        return torch.cat([fixed[:, :, None].expand(-1, -1, n, -1, -1), *around], dim=3)

    def _mask(self, n: int, length: int, counts: Tensor | None, begun: Tensor | None, device: torch.device) -> Tensor:
        """(1 or B, n, w, g + 2 or 3 w) bool, by positions; every step sees itself, so that no row is empty."""
        g, w = self.n_global, self.window
        start = torch.zeros(1, 1, 1, 1, dtype=torch.int64, device=device) if begun is None else _wide(begun)
        first = start + torch.arange(0, n * w, w, device=device)[:, None, None]  # (1 or B, n, 1, 1)
        i = first + torch.arange(w, device=device)[:, None]  # the query's position (.., n, w, 1)
        j = first + torch.arange(-w, w if self.causal else 2 * w, device=device)  # the key's (.., n, 1, 2 or 3 w)
        fixed = torch.arange(g, device=device)
        if self.causal:
            return torch.cat([fixed <= i, (j <= i) & (i - j < w) & (j >= g)], dim=-1)
        end = length if counts is None else _wide(counts)
        near = ((i - j).abs() < w) & (j >= g) & ((j < end) | (i == j))
        far = (fixed < end) | (i == fixed)
        return torch.cat([far.expand(*near.shape[:-1], g), near], dim=-1)

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor, state: Any) -> Tensor:
        """y (B, H, 1, K); the step's key and value go into the state."""
        g, w, p = self.n_global, self.window, state.counts[:, None]  # p (B, 1)
        slot, fixed = g + state.counts % w, torch.arange(g, device=q.device)
        for kept, new in ((state.k, k), (state.v, v)):
            put(kept, slot, new)
            kept[:, :, :g] = torch.where((fixed == p)[:, None, :, None], new.to(kept.dtype), kept[:, :, :g])
        j = p - (p - torch.arange(w, device=q.device)) % w  # the position in each slot
        mask = torch.cat([fixed <= p, j >= g], dim=1)[:, None, None]
        state.counts += 1
        return attend(q, state.k.to(q.dtype), state.v.to(q.dtype), attn_mask=mask)


def _extended(x: Tensor, length: int) -> Tensor:
    """The first steps of x (B, H, T, K), zeros behind; in an exported program the last step again and again.

    That asks nothing about T: a program whose length is free would be tied to one side of `length`.
    """
    if exporting():
        return x.index_select(2, torch.arange(length, device=x.device).clamp_max(x.shape[2] - 1))
    more = length - x.shape[2]
    return F.pad(x, (0, 0, 0, more)) if more > 0 else x[:, :, :length]


def _wide(x: Tensor) -> Tensor:
    return x[:, None, None, None]


def _take(x: Tensor, places: Tensor) -> Tensor:
    """x (B, H, T, K) at places (B, t) -> (B, H, t, K)."""
    return x.gather(2, places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
