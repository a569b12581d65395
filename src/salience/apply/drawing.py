"""Draw what was kept of a picture: kept cells as they are, the rest dimmed; scores as tints, merged tokens outlined."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from salience.core.types import Merge, VisualGrid

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_DIM = 0.35  # brightness of what was dropped: dark enough to stand back, light enough to see what it was
_TINT = 0.55  # share of a score's colour in its cell


def kept_picture(picture: Image, grid: VisualGrid, kept: Sequence[int]) -> Image:
    """`picture` with the cells `kept` of `grid` bright and the others grey and dark."""
    from PIL import Image

    mask = np.zeros(grid.n, dtype=np.float32)
    mask[list(kept)] = 1
    bright = _spread(mask[:, None], grid, picture.size)[..., 0:1] > 0  # (H, W, 1)
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)  # (H, W, 3)
    grey = pixels.mean(-1, keepdims=True)
    dimmed = _DIM * (0.5 * pixels + 0.5 * grey)
    return Image.fromarray(np.where(bright, pixels, dimmed).astype(np.uint8))


def draw_kept(
    picture: Image, grid: VisualGrid, kept: Tensor, *, scores: Tensor | None, merge: Merge | None, heat: bool
) -> Image:
    """See `ImageTrace.draw`."""
    if heat and scores is None:
        raise ValueError("scores can't be drawn: the method gave none.")
    drawn = kept_picture(picture, grid, kept.tolist())
    if heat and scores is not None:
        drawn = _tinted(drawn, grid, scores)
    if merge is not None:
        _outline(drawn, grid, kept, merge)
    return drawn


def _spread(cells: np.ndarray, grid: VisualGrid, size: tuple[int, int]) -> np.ndarray:
    """(n, c) values of cells -> (H, W, c), each cell's own rectangle."""
    width, height = size
    rows = np.arange(height) * grid.rows // height
    columns = np.arange(width) * grid.columns // width
    spread: np.ndarray = cells.reshape(grid.rows, grid.columns, -1)[rows][:, columns]
    return spread


def _tinted(picture: Image, grid: VisualGrid, scores: Tensor) -> Image:
    """Tinted by rank and not by value: attention has few large values, and all else would look the same."""
    from PIL import Image

    rank = scores.argsort().argsort().numpy() / max(1, grid.n - 1)  # (n,) in 0..1
    colours = np.array([colorsys.hsv_to_rgb(0.66 * (1 - x), 1, 1) for x in rank], dtype=np.float32) * 255
    pixels = np.asarray(picture, dtype=np.float32)
    tinted = (1 - _TINT) * pixels + _TINT * _spread(colours, grid, picture.size)
    return Image.fromarray(tinted.astype(np.uint8))


def _outline(picture: Image, grid: VisualGrid, kept: Tensor, merge: Merge) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    for number, target in enumerate(sorted(set(merge.target.tolist()))):
        colour = tuple(int(255 * x) for x in colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.8, 1))  # golden: all differ
        for source in merge.sources(target).tolist():
            pen.rectangle(_box(source, grid, picture.size), outline=colour)
        pen.rectangle(_box(int(kept[target]), grid, picture.size), outline=colour, width=2)


def _box(token: int, grid: VisualGrid, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The first and last pixels of a token's cell."""
    row, column = divmod(token, grid.columns)
    (width, height) = size
    left, right = (-(-x * width // grid.columns) for x in (column, column + 1))  # where `_spread` changes cells
    top, bottom = (-(-y * height // grid.rows) for y in (row, row + 1))
    return left, top, max(left, right - 1), max(top, bottom - 1)
