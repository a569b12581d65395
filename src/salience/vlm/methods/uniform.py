"""Uniform grid: tokens spread evenly over the picture, whatever it shows."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from salience.core.types import TokenContext
from salience.vlm.methods.base import Method


class Uniform(Method):
    """Keep the first k cells in Bayer order, the order of ordered dithering: every prefix of it covers the grid evenly.

    Source: Bayer, "An optimum method for two-level rendition of continuous-tone pictures", ICC 1973.
    """

    name = "uniform"
    scored = False

    def score(self, ctx: TokenContext) -> Tensor:
        return -bayer_rank(ctx.grid.rows, ctx.grid.columns)


@lru_cache(maxsize=32)
def bayer_rank(rows: int, columns: int) -> Tensor:
    """(rows * columns,) float32, raster order: thresholds in the middle of the Bayer matrix of the next power of two.

    M_1 = [[0]],  M_2m = [[4 M_m, 4 M_m + 2], [4 M_m + 3, 4 M_m + 1]]: what is placed first is farthest apart.
    """
    matrix = torch.zeros(1, 1)
    while matrix.shape[0] < max(rows, columns):
        matrix = 4 * matrix
        matrix = torch.cat([torch.cat([matrix, matrix + 2], dim=1), torch.cat([matrix + 3, matrix + 1], dim=1)])
    top, left = (matrix.shape[0] - rows) // 2, (matrix.shape[0] - columns) // 2  # the middle: no edge is favoured
    return matrix[top : top + rows, left : left + columns].reshape(-1)
