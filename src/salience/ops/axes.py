"""Position ids with several axes (time, height, width) after visual tokens were dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.ops.tokens import Columns


def kept_axes(
    original: Tensor, columns: Columns, mask: Tensor, visual: Tensor, *, full_mask: Tensor, compact: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The remaining positions, the position of the next token, and how far that moved.

    The first of four axes, the text's, always counts the remaining tokens: gaps there are read as packed sequences.

    Args:    original: (3 or 4, B, T)   mask, visual: (B, L), of the remaining columns   full_mask: (B, T)
             compact: close each axis' gaps within each picture, and move the tokens behind it accordingly
    Returns: positions (3 or 4, B, L), ends (B,), moved (B,), all int64
    """
    text, axes = original[:-3], original[-3:].expand(3, mask.shape[0], -1)
    ends = axes.masked_fill(full_mask == 0, -1).amax(dim=(0, 2)) + 1  # (B,)
    kept = columns.take(axes, 0)  # (3, B, L)
    moved = torch.zeros_like(ends)
    if compact:
        for row in range(mask.shape[0]):
            moved[row] = _close(kept[:, row], mask[row] != 0, visual[row], int(ends[row]))
    if text.shape[0]:
        counted = (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
        kept = torch.cat([counted[None], kept])
    return kept, ends - moved, moved


def _close(axes: Tensor, real: Tensor, visual: Tensor, end: int) -> int:
    """Close the gaps of one row (3, L) in place; returns how far the tokens behind moved."""
    columns = real.nonzero().flatten()
    kinds, lengths = torch.unique_consecutive(visual[columns], return_counts=True)
    moved, start = 0, None  # start: position of the next token
    runs = torch.split(columns, lengths.tolist())
    for index, (run, is_visual) in enumerate(zip(runs, kinds.tolist(), strict=True)):
        if not is_visual:
            axes[:, run] -= moved
            start = int(axes[0, run[-1]]) + 1
            continue
        start = int(axes[:, run].min()) if start is None else start
        time, *space = axes[:, run]  # no frame is dropped as a whole, so time has no gaps
        ranks = torch.stack([time - time.min(), *(torch.unique(x, return_inverse=True)[1] for x in space)])  # (3, k)
        axes[:, run] = start + ranks
        start += int(ranks[1:].max()) + 1  # text goes on after the longer of height and width, whatever the time
        moved = (int(axes[0, runs[index + 1][0]]) if index + 1 < len(runs) else end) - start
    return moved
