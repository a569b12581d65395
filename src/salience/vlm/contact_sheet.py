"""Contact sheet of one picture: pruning methods down, budgets across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from salience.vlm.drawing import heat_picture
from salience.vlm.trace import ImageTrace

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Panel = tuple[Image | None, str]  # a drawing, None for an empty place, and its caption

_TEXT = 12  # pixels of the letters
_GREY = (87, 96, 106)


def contact_sheet(
    picture: Image, traces: Mapping[str, Mapping[str, ImageTrace]], *, title: str = "", side: int = 160
) -> Image:
    """Draw one picture for each of several methods and budgets, and each method's scores as a heat map.

    Args:    picture: as the model saw it   traces: method -> name of the budget -> trace; the same budgets for each
             method   title: written on top
             side: pixels of a panel's longer side; at least one for each of the grid's cells
    Returns: a row a method, a column a budget, and a last column with the scores of the first budget, if there are any
    Raises:  ValueError when there is nothing to draw, or the methods have different budgets
    """
    from PIL import ImageOps

    budgets = list(dict.fromkeys(name for row in traces.values() for name in row))
    if not budgets or any(list(row) != budgets for row in traces.values()):
        raise ValueError("traces must have at least one method and budget, and the same budgets for each method.")
    small = ImageOps.contain(picture.convert("RGB"), (side, side))
    rows = []
    for method, row in traces.items():
        panels: list[Panel] = [(trace.draw(small), _tokens(trace)) for trace in row.values()]
        first = row[budgets[0]]
        heat = None if first.scores is None else heat_picture(small, first.grid, first.scores)
        panels.append((heat, "no scores" if heat is None else "scores"))
        rows.append((method, panels))
    if all(panels[-1][0] is None for _, panels in rows):
        rows = [(method, panels[:-1]) for method, panels in rows]
    return _laid_out(rows, budgets, small.size, title)


def _tokens(trace: ImageTrace) -> str:
    merged = ", merged" if trace.groups() else ""
    return f"{len(trace.kept)} of {trace.grid.n}{merged}"


def _laid_out(
    rows: Sequence[tuple[str, Sequence[Panel]]], budgets: Sequence[str], size: tuple[int, int], title: str
) -> Image:
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


def _wrapped(text: str, font: ImageFont | FreeTypeFont, width: int) -> list[str]:
    """Lines of at most `width` pixels, or of one long word."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines
