"""The oracle: tokens on the boxes of the picture's items; a reference that needs labels, not an upper bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salience.core.types import TokenContext, VisualGrid
from salience.vlm.methods.base import Method

Box = Sequence[float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle(Method):
    """Keep cells on the given boxes, alternating between boxes, each from its middle outwards; then the nearest cells.

    Args:    boxes: for each picture of a call, in batch order, its boxes (x0, y0, x1, y1) in pixels, x to the right
             image_size: (height, width) in pixels of the picture the boxes lie on
    Raises:  ValueError when a box is not four numbers with x0 < x1 and y0 < y1, or a call has more pictures than lists
    """

    name = "oracle"
    scored = False
    boxes: Sequence[Sequence[Box]]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        for box in (box for picture in self.boxes for box in picture):
            if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
                raise ValueError(f"a box must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1, not {tuple(box)!r}.")

    def score(self, ctx: TokenContext) -> Tensor:
        if ctx.image_index >= len(self.boxes):
            raise ValueError(f"boxes has {len(self.boxes)} pictures' lists, but the call has more pictures than that.")
        picture = self.boxes[ctx.image_index]
        if not picture:
            return torch.zeros(ctx.grid.n)
        ranks = torch.stack([self._ranks(box, ctx.grid) for box in picture])  # (boxes, n)
        return -ranks.amin(0)

    def _ranks(self, box: Box, grid: VisualGrid) -> Tensor:
        """(n,) rank of each cell for this box: 0 for the cell nearest its middle, distance measured in box sizes."""
        height, width = self.image_size
        x = (torch.arange(grid.columns) + 0.5) * (width / grid.columns)
        y = (torch.arange(grid.rows) + 0.5) * (height / grid.rows)
        dx = (x - (box[0] + box[2]) / 2) / (box[2] - box[0])  # within half a box of the middle: |dx| <= .5
        dy = (y - (box[1] + box[3]) / 2) / (box[3] - box[1])
        distance = (dy[:, None] ** 2 + dx[None, :] ** 2).reshape(-1)
        return distance.argsort(stable=True).argsort().float()
