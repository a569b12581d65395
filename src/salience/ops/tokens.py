"""Dropping columns of a padded batch, and gathering the tensors that run along the sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Original column of each remaining column.

    index: (B, L) int64, -1 for new padding.   dropped: (B,) int64, number of columns dropped from each row.
    before: (B, L) int64, number of columns dropped to the left of this one.   width: T, the original number of columns.
    """

    index: Tensor
    dropped: Tensor
    before: Tensor
    width: int

    def take(self, values: Tensor, fill: float) -> Tensor:
        """(..., B or 1, T) -> (..., B, L), with `fill` in new padding."""
        rows, leading = self.index.shape[0], values.shape[:-2]
        index = self.index.expand(*leading, -1, -1)
        values = values.expand(*leading, rows, -1)
        return values.gather(-1, index.clamp_min(0)).masked_fill(index < 0, fill)

    def positions(self, original: Tensor, *, compact: bool) -> Tensor:
        """(B, T) or (1, T) position ids -> (B, L): the original ones, or with the gaps closed."""
        positions = self.take(original, 0)
        return (positions - self.before).clamp_min(0) if compact else positions

    def extend(self, width: int) -> Columns:
        """Add columns up to `width`, none of them dropped, for the text of a later turn."""
        more = torch.arange(self.width, width, device=self.index.device).expand(self.index.shape[0], -1)
        before = torch.cat([self.before, self.dropped[:, None].expand(-1, width - self.width)], dim=1)
        return Columns(index=torch.cat([self.index, more], dim=1), dropped=self.dropped, before=before, width=width)

    def repeat(self, times: int) -> Columns:
        """Every row `times` times in a row, as `generate` expands its inputs."""
        index, dropped, before = (x.repeat_interleave(times, 0) for x in (self.index, self.dropped, self.before))
        return Columns(index=index, dropped=dropped, before=before, width=self.width)


def padding_side(mask: Tensor) -> str:
    """The side, "left" or "right", on which a batch's (B, T) mask has its padding; "left" without padding."""
    leading, trailing = (mask[:, 0] == 0).any(), (mask[:, -1] == 0).any()
    return "right" if bool(trailing & ~leading) else "left"


def remaining_columns(mask: Tensor, drop: Tensor, *, side: str) -> Columns:
    """Columns that stay without `drop`. Rows that became shorter are padded on `side`.

    Padding columns that all rows have stay, so that dropping nothing changes nothing.

    Args:    mask: (B, T), 0 for padding   drop: (B, T) bool   side: "left" or "right"
    """
    rows, width = drop.shape
    outer = (mask == 0) & ~drop
    run = outer if side == "left" else outer.flip(1)
    run = run.long().cumprod(1).bool()  # padding from the edge inwards
    run = run if side == "left" else run.flip(1)
    pads, stay = run.sum(1), ~drop & ~run
    alive = stay.sum(1)  # (B,)
    length = int(alive.max() + pads.min())
    order = (~stay).long().argsort(dim=1, stable=True)  # (B, T), the staying columns first, in order
    j = torch.arange(length, device=drop.device).expand(rows, -1)  # (B, L)
    if side == "left":
        rank = j - (length - alive)[:, None]  # of the staying column in its row; negative: padding
        padding = pads[:, None] + rank  # the original padding next to the text first
        is_padding, padding = rank < 0, padding.clamp_min(-1)
    else:
        rank = j
        padding = (width - pads - alive)[:, None] + j
        is_padding, padding = j >= alive[:, None], padding.masked_fill(padding >= width, -1)
    index = order.gather(1, rank.clamp(0, width - 1))
    index = torch.where(is_padding, padding, index)
    before = drop.long().cumsum(1).gather(1, index.clamp_min(0)).masked_fill(index < 0, 0)
    return Columns(index=index, dropped=drop.sum(1), before=before, width=width)
