"""Draw what was kept of a picture: kept cells as they are, the rest dimmed; scores as tints, merged tokens outlined.

`contact_sheet` puts a picture's traces side by side, methods down and budgets across.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salience.core.types import VisualGrid

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from salience.vlm.trace import ImageTrace

_DIM = 0.35  # brightness of what was dropped: dark enough to stand back, light enough to see what it was
_VEIL = 32  # added to what was dropped, so that it is told from what is kept where the picture itself is black
_TINT = 0.55  # share of a score's colour in its cell
_TEXT = 12  # pixels of a sheet's letters
_GREY = (87, 96, 106)


#: Left, top, right and bottom of the part of a picture that a grid lies on, in pixels; beyond it where it is padded.
Region = tuple[float, float, float, float]


def kept_picture(picture: Image, grid: VisualGrid, kept: Sequence[int], region: Region | None = None) -> Image:
    """`picture` with the cells `kept` of `grid` bright and the others grey and dark.

    region: the part that the grid lies on, the whole picture if None; what is outside was not seen, and is dark
    """
    from PIL import Image

    mask = np.zeros(grid.n, dtype=np.float32)
    mask[list(kept)] = 1
    bright = _spread(mask[:, None], grid, picture.size, region)[..., 0:1] > 0  # (H, W, 1)
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)  # (H, W, 3)
    grey = pixels.mean(-1, keepdims=True)
    dimmed = _VEIL + _DIM * (0.5 * pixels + 0.5 * grey)
    return Image.fromarray(np.where(bright, pixels, dimmed).astype(np.uint8))


def draw_kept(
    picture: Image, grid: VisualGrid, kept: Tensor, *, scores: Tensor | None, groups: Mapping[int, set[int]], heat: bool
) -> Image:
    """See `ImageTrace.draw`."""
    if heat and scores is None:
        raise ValueError("scores can't be drawn: the method gave none.")
    drawn = kept_picture(picture, grid, kept.tolist())
    if heat and scores is not None:
        drawn = _tinted(drawn, grid, scores)
    _outline(drawn, grid, groups)
    return drawn


def heat_picture(picture: Image, grid: VisualGrid, scores: Tensor) -> Image:
    """`picture` with every cell tinted by the rank of its score, from blue, the lowest, to red."""
    return _tinted(picture.convert("RGB"), grid, scores)


def contact_sheet(
    picture: Image, traces: Mapping[str, Mapping[str, ImageTrace]], *, title: str = "", side: int = 160
) -> Image:
    """The same picture for each of several methods and budgets, and each method's scores as a heat map.

    Args:    picture: as the model saw it   traces: method -> what the budget is called -> what was kept at it; every
             method has the same budgets   title: written on top
             side: pixels of a panel's longer side; at least one for each of the grid's cells
    Returns: a row a method, a column a budget, and one more where a method gave scores, those of its first budget
    Raises:  ValueError when there is nothing to draw, or the methods have different budgets
    """
    budgets = list(dict.fromkeys(name for row in traces.values() for name in row))
    if not budgets or any(list(row) != budgets for row in traces.values()):
        raise ValueError("traces must have at least one method and budget, and the same budgets for each method.")
    small = _fitted(picture.convert("RGB"), side)
    rows = []
    for method, row in traces.items():
        panels: list[tuple[Image | None, str]] = [(trace.draw(small), _tokens(trace)) for trace in row.values()]
        scored = row[budgets[0]]
        panels.append((None, "no scores") if scored.scores is None else
                      (heat_picture(small, scored.grid, scored.scores), "scores"))  # fmt: skip
        rows.append((method, panels))
    if all(panels[-1][0] is None for _, panels in rows):
        rows = [(method, panels[:-1]) for method, panels in rows]
    return _laid_out(rows, budgets, small.size, title)


def _tokens(trace: ImageTrace) -> str:
    merged = ", merged" if trace.groups() else ""
    return f"{len(trace.kept)} of {trace.grid.n}{merged}"


def _fitted(picture: Image, side: int) -> Image:
    scale = side / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _laid_out(
    rows: Sequence[tuple[str, Sequence[tuple[Image | None, str]]]], budgets: Sequence[str], size: tuple[int, int],
    title: str,
) -> Image:  # fmt: skip
    """Panels on white, a caption under each, methods on the left, budgets on top."""
    from PIL import Image, ImageDraw, ImageFont

    font, gap, line = ImageFont.load_default(size=_TEXT), 8, _TEXT + 6
    left = gap + max(int(font.getlength(name)) for name, _ in rows)
    columns = max(len(panels) for _, panels in rows)
    width = left + gap + columns * (size[0] + gap)
    lines = _wrapped(title, font, width - 2 * gap)
    top = gap + line * len(lines)
    sheet = Image.new("RGB", (width, top + line + len(rows) * (size[1] + line + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(lines):
        pen.text((gap, gap + number * line), text, fill="black", font=font)
    for place, name in enumerate(budgets):
        pen.text((left + gap + place * (size[0] + gap), top), name, fill="black", font=font)
    for number, (method, panels) in enumerate(rows):
        y = top + line + number * (size[1] + line + gap)
        pen.text((gap, y + size[1] // 2), method, fill="black", font=font)
        for place, (panel, caption) in enumerate(panels):
            x = left + gap + place * (size[0] + gap)
            if panel is not None:
                sheet.paste(panel, (x, y))
            pen.text((x, y + size[1] + 1), caption, fill=_GREY, font=font)
    return sheet


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """The text in lines of at most that many pixels, or a word each."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def _spread(
    cells: np.ndarray, grid: VisualGrid, size: tuple[int, int], region: Region | None = None
) -> np.ndarray:  # fmt: skip
    """(n, c) values of cells -> (H, W, c), each cell's own rectangle; zeros outside of `region`."""
    left, top, right, bottom = region or (0.0, 0.0, float(size[0]), float(size[1]))
    table = cells.reshape(grid.rows, grid.columns, -1)
    table = np.pad(table, ((0, 1), (0, 1), (0, 0)))  # a last row and column for what is outside
    rows = _cells(size[1], top, bottom, grid.rows)
    columns = _cells(size[0], left, right, grid.columns)
    spread: np.ndarray = table[rows][:, columns]
    return spread


def _cells(side: int, first: float, last: float, count: int) -> np.ndarray:
    """(side,) the cell that each pixel lies in, `count` where it is in none; cells go evenly from `first` to `last`."""
    # a pixel belongs to the cell of its first edge, as `_box` has it
    found: np.ndarray = np.floor((np.arange(side) - first) * count / (last - first) + 1e-9).astype(int)
    return np.where((found < 0) | (found >= count), count, found)


def _tinted(picture: Image, grid: VisualGrid, scores: Tensor) -> Image:
    """Tinted by rank and not by value: attention has few large values, and all else would look the same."""
    from PIL import Image

    rank = scores.argsort().argsort().numpy() / max(1, grid.n - 1)  # (n,) in 0..1
    colours = np.array([colorsys.hsv_to_rgb(0.66 * (1 - x), 1, 1) for x in rank], dtype=np.float32) * 255
    pixels = np.asarray(picture, dtype=np.float32)
    tinted = (1 - _TINT) * pixels + _TINT * _spread(colours, grid, picture.size)
    return Image.fromarray(tinted.astype(np.uint8))


def _outline(picture: Image, grid: VisualGrid, groups: Mapping[int, set[int]]) -> None:
    """Around each group's cells, where the neighbour is none of it, and twice as thick around the one that is kept.

    groups: kept token -> all that went into it
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
    """The sides of a token's cell beyond which the group does not go on."""
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
    (width, height) = size
    left, right = (-(-x * width // grid.columns) for x in (column, column + 1))  # where `_spread` changes cells
    top, bottom = (-(-y * height // grid.rows) for y in (row, row + 1))
    return left, top, max(left, right - 1), max(top, bottom - 1)
