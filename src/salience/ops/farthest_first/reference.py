"""Plain version of `farthest_first`: `count` steps, each for the whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor


def steps(distance: Tensor, nearest: Tensor, count: int) -> Tensor:
    """(B, count) int64 of distance (B, n, n) and nearest (B, n), each one's distance to its nearest neighbour."""
    row_of = torch.arange(len(distance), device=distance.device)
    chosen: list[Tensor] = []
    for step in range(count):
        pick = nearest.argmax(1)
        chosen.append(pick)
        row = distance[row_of, pick]  # (B, n)
        nearest = row if step == 0 else torch.minimum(nearest, row)
        nearest = nearest.scatter(1, pick[:, None], float("-inf"))  # and there it stays
    return torch.stack(chosen, dim=1)
