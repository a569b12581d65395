"""Drawings of kept tokens, scores and merged tokens on a picture."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from salience.core.types import VisualGrid

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_DIM = 0.35  # brightness of dropped cells: clearly darker, but still recognisable
_VEIL = 32  # added to dropped cells, so that they differ from kept ones where the picture is black
_TINT = 0.55  # share of a score's colour in its cell

#: Left, top, right and bottom of the part of a picture that a grid lies on, in pixels; beyond it where it is padded.
Region = tuple[float, float, float, float]


def kept_picture(picture: Image, grid: VisualGrid, kept: Sequence[int], region: Region | None = None) -> Image:
    """`picture` with the cells `kept` of `grid` bright and the others grey and dark.

    region: the part that the grid lies on, the whole picture if None; the rest was not seen and is dimmed
    """
    from PIL import Image

    mask = np.zeros(grid.n, dtype=np.float32)
    mask[list(kept)] = 1
    bright = _spread(mask[:, None], grid, picture.size, region)[..., 0:1] > 0  # (H, W, 1)
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)  # (H, W, 3)
    grey = pixels.mean(-1, keepdims=True)
    dimmed = _VEIL + _DIM * (0.5 * pixels + 0.5 * grey)
    return Image.fromarray(np.where(bright, pixels, dimmed).astype(np.uint8))


def _spread(cells: np.ndarray, grid: VisualGrid, size: tuple[int, int], region: Region | None = None) -> np.ndarray:
    """(n, c) values of cells -> (H, W, c), on each cell's rectangle; zeros outside of `region`."""
    left, top, right, bottom = region or (0.0, 0.0, float(size[0]), float(size[1]))
    table = cells.reshape(grid.rows, grid.columns, -1)
    table = np.pad(table, ((0, 1), (0, 1), (0, 0)))  # a last row and column for pixels outside
    rows = _cells(size[1], top, bottom, grid.rows)
    columns = _cells(size[0], left, right, grid.columns)
    spread: np.ndarray = table[rows][:, columns]
    return spread


def _cells(side: int, first: float, last: float, count: int) -> np.ndarray:
    """(side,) the cell of each pixel, `count` for none; cells divide `first` to `last` evenly."""
    # a pixel belongs to the cell of its first edge, as in `_box`
    found: np.ndarray = np.floor((np.arange(side) - first) * count / (last - first) + 1e-9).astype(int)
    return np.where((found < 0) | (found >= count), count, found)


def heat_picture(picture: Image, grid: VisualGrid, scores: Tensor) -> Image:
    """`picture` with every cell tinted by the rank of its score, from blue, the lowest, to red.

    By rank, not by value: attention has a few large values, next to which all others would look the same.
    """
    from PIL import Image

    rank = scores.argsort().argsort().numpy() / max(1, grid.n - 1)  # (n,) in 0..1
    colours = np.array([colorsys.hsv_to_rgb(0.66 * (1 - x), 1, 1) for x in rank], dtype=np.float32) * 255
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    tinted = (1 - _TINT) * pixels + _TINT * _spread(colours, grid, picture.size)
    return Image.fromarray(tinted.astype(np.uint8))


def outline(picture: Image, grid: VisualGrid, groups: Mapping[int, set[int]]) -> None:
    """Draw a line around the cells of each group, and one twice as thick around the kept cell.

    groups: kept token -> all tokens that went into it
    """
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    for number, (kept, group) in enumerate(groups.items()):
        colour = tuple(int(255 * x) for x in colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.8, 1))  # golden: all differ
        for source in group:
            for side in _border(source, group, grid, picture.size):
                pen.line(side, fill=colour)
        pen.rectangle(_box(kept, grid, picture.size), outline=colour, width=2)


def _border(token: int, group: set[int], grid: VisualGrid, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """The sides of a token's cell whose neighbour is not in the group."""
    row, column = divmod(token, grid.columns)
    left, top, right, bottom = _box(token, grid, size)
    sides = {
        (row - 1, column): (left, top, right, top),
        (row + 1, column): (left, bottom, right, bottom),
        (row, column - 1): (left, top, left, bottom),
        (row, column + 1): (right, top, right, bottom),
    }
    inside = [0 <= r < grid.rows and 0 <= c < grid.columns and r * grid.columns + c in group for r, c in sides]
    return [side for side, goes_on in zip(sides.values(), inside, strict=True) if not goes_on]


def _box(token: int, grid: VisualGrid, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The first and last pixels of a token's cell."""
    row, column = divmod(token, grid.columns)
    left, right = (-(-x * size[0] // grid.columns) for x in (column, column + 1))  # where `_spread` changes cells
    top, bottom = (-(-y * size[1] // grid.rows) for y in (row, row + 1))
    return left, top, max(left, right - 1), max(top, bottom - 1)
