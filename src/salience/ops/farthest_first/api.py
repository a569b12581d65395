"""`farthest_first`: a loop whose every step needs the one before, so it runs inside one kernel and not in Python."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.core.backend import eager, pick
from salience.ops.farthest_first.reference import steps


@torch.no_grad()
def farthest_first(distance: Tensor, count: int, *, backend: str = "auto") -> Tensor:
    """First the one whose nearest neighbour is farthest, then always the one farthest from those chosen.

    Args:    distance: (B, n, n) float32, symmetric; its diagonal is not read   count: 1 to n
    Returns: (B, count) int64 in the order chosen, nothing twice, ties going to the earlier; the same on every backend
    Raises:  ValueError when distance is no batch of squares of float32, or there are fewer than count
    """
    if distance.dim() != 3 or distance.shape[1] != distance.shape[2] or distance.dtype != torch.float32:
        raise ValueError(f"distance must be (B, n, n) float32, not {tuple(distance.shape)} {distance.dtype}.")
    batch, n, _ = distance.shape
    if not 1 <= count <= n:
        raise ValueError(f"count must be from 1 to {n}, not {count!r}.")
    diagonal = torch.eye(n, dtype=torch.bool, device=distance.device)
    nearest = distance.masked_fill(diagonal, float("inf")).amin(2)  # (B, n): a thing isn't its own neighbour
    name = pick("farthest_first", (distance,), backend)
    name = name if eager(distance) else "reference"
    if name == "cpu" and batch:
        from salience.ops.farthest_first import cpu

        return cpu.steps(distance.contiguous(), nearest, count)
    if name == "triton" and batch:
        from salience.ops.farthest_first import triton

        return triton.steps(distance.contiguous(), nearest, count)
    return steps(distance, nearest, count)
