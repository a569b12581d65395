"""Max-min diversity: a selection of items, one after the other, each far from those before it."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.core.backend import eager, pick


@torch.no_grad()
def farthest_first(distance: Tensor, count: int, *, backend: str = "auto") -> Tensor:
    """Choose `count` of n items, each far from those before it (max-min diversity).

    The first item is the one with the farthest nearest neighbour, each next one the farthest from all chosen so far.

    Args:    distance: (B, n, n) float32, symmetric; its diagonal is not read   count: 1 to n
    Returns: (B, count) int64 in the order chosen, each at most once, the earlier one at a tie; equal on all backends
    Raises:  ValueError when distance is not (B, n, n) float32, or count is not from 1 to n
    """
    if distance.dim() != 3 or distance.shape[1] != distance.shape[2] or distance.dtype != torch.float32:
        raise ValueError(f"distance must be (B, n, n) float32, not {tuple(distance.shape)} {distance.dtype}.")
    batch, n, _ = distance.shape
    if not 1 <= count <= n:
        raise ValueError(f"count must be from 1 to {n}, not {count!r}.")
    diagonal = torch.eye(n, dtype=torch.bool, device=distance.device)
    nearest = distance.masked_fill(diagonal, float("inf")).amin(2)  # (B, n), without the item itself
    name = pick("farthest_first", (distance,), backend)
    name = name if eager(distance) else "reference"
    if name == "cpu" and batch:
        from salience.ops.farthest_first import cpu

        return cpu.steps(distance.contiguous(), nearest, count)
    if name == "triton" and batch:
        from salience.ops.farthest_first import triton

        if n <= triton.MOST:
            return triton.steps(distance.contiguous(), nearest, count)
    return steps(distance, nearest, count)


def steps(distance: Tensor, nearest: Tensor, count: int) -> Tensor:
    """The plain version: (B, count) int64 of distance (B, n, n) and the distance (B, n) to the nearest neighbour."""
    row_of = torch.arange(len(distance), device=distance.device)
    chosen: list[Tensor] = []
    for step in range(count):
        pick = nearest.argmax(1)
        chosen.append(pick)
        row = distance[row_of, pick]  # (B, n)
        nearest = row if step == 0 else torch.minimum(nearest, row)
        nearest = nearest.scatter(1, pick[:, None], float("-inf"))  # and there it stays
    return torch.stack(chosen, dim=1)
