"""The same picture at every ratio: what was kept bright, the rest dimmed, and what was answered."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from salience.lab.report.kit.method_styles import drawn, phrase, title
from salience.lab.report.kit.words import share
from salience.lab.report.load import Cut, Example

#: Sides of the embedded picture in pixels; it is shown smaller than this.
SIDE = 336


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cut on the page: the SVG path of what is dimmed, the answer, whether it is right, and all of it in words."""

    keep: str
    dimmed: str
    tokens: int
    answer: str
    right: bool
    words: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A method's cuts of one picture, one per ratio of the sample (None where there is none)."""

    method: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture on the page. `picture` is a data URI or None when the file is missing; `boxes` are in grid cells."""

    id: str
    picture: str | None
    question: str
    answer: str
    full_answer: str | None
    full_right: bool
    kind: str
    rows: int
    columns: int
    boxes: tuple[tuple[float, float, float, float], ...]
    keeps: tuple[str, ...]
    strips: tuple[Strip, ...]


def dimmed_path(kept: Collection[int], rows: int, columns: int) -> str:
    """The cells that were dropped as one SVG path in grid units, runs of a row drawn as one rectangle."""
    held, parts = set(kept), []
    for row in range(rows):
        column = 0
        while column < columns:
            start = column
            while column < columns and row * columns + column not in held:
                column += 1
            if column > start:
                parts.append(f"M{start} {row}h{column - start}v1h-{column - start}z")
            column += 1
    return "".join(parts)


def sample(example: Example, name: str) -> Sample:
    """Prepares an example for the page; a cut at ratio 1 is left out, for the whole picture stands beside."""
    cuts = [cut for cut in example.cuts if cut.keep < 1]
    keeps = sorted({cut.keep for cut in cuts}, reverse=True)
    methods = drawn(list(dict.fromkeys(cut.method for cut in cuts)))
    by_place = {(cut.method, cut.keep): cut for cut in cuts}
    size, picture = _picture(example.image)
    rows, columns = example.grid
    across, down = columns / size[0], rows / size[1]
    return Sample(
        id=name,
        picture=picture,
        question=example.question,
        answer=example.answer,
        full_answer=example.full_answer,
        full_right=example.full_answer == example.answer,
        kind=example.kind,
        rows=rows,
        columns=columns,
        boxes=tuple((x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down) for x0, y0, x1, y1 in example.boxes),
        keeps=tuple(share(keep) for keep in keeps),
        strips=tuple(
            Strip(method=title(m), cells=tuple(_cell(by_place.get((m, keep)), example) for keep in keeps))
            for m in methods
        ),
    )


def _cell(cut: Cut | None, example: Example) -> Cell | None:
    if cut is None:
        return None
    rows, columns = example.grid
    right = cut.answer == example.answer
    verdict = "right" if right else "wrong"
    return Cell(
        keep=share(cut.keep),
        dimmed=dimmed_path(cut.kept, rows, columns),
        tokens=len(cut.kept),
        answer=cut.answer,
        right=right,
        words=f"{len(cut.kept)} of {rows * columns} tokens, {phrase(cut.method)}; answered {cut.answer}, {verdict}",
    )


def _picture(path: Path | None) -> tuple[tuple[int, int], str | None]:
    """The picture's size and itself as a data URI, small enough for a page; a missing or broken file gives none."""
    from PIL import Image, UnidentifiedImageError

    if path is None:
        return (SIDE, SIDE), None
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return (SIDE, SIDE), None
    size = picture.size
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=88, optimize=True)
    return size, "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
