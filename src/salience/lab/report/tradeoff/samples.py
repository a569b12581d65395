"""Sample pictures at every ratio, kept tokens bright and the others dimmed: on the page, and the first as a file."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from salience.core.files import write_atomic
from salience.core.result_tables import Example, ExampleCut
from salience.lab.report.kit.method_styles import drawn, phrase, title
from salience.lab.report.kit.palette import LIGHT
from salience.lab.report.kit.words import share
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

#: Sides of the embedded picture in pixels; it is shown smaller than this.
SIDE = 336
#: Of the file: brightness of a dropped cell; side of a picture, gap and height of its text in pixels.
_DIMMED = 0.22
_STRIP_SIDE, _GAP, _TEXT = 336, 20, 92


@dataclass(frozen=True, kw_only=True)
class PageCut:
    """A method's cut of a picture at one ratio. dimmed: SVG path of the dropped tokens   right: whether the answer is
    words: description for those who can't see it"""

    keep: str
    dimmed: str
    tokens: int
    answer: str
    right: bool
    words: str


@dataclass(frozen=True, kw_only=True)
class CutRow:
    """A method's cuts of one picture, one for each ratio of the sample (None where there is none)."""

    method: str
    cuts: tuple[PageCut | None, ...]


@dataclass(frozen=True, kw_only=True)
class PageSample:
    """An example on the page. picture: data URI, None where the file is missing
    boxes: of items, (x, y, width, height) in cells of the grid   keeps: heads of the columns"""

    id: str
    example: Example
    picture: str | None
    boxes: tuple[tuple[float, float, float, float], ...]
    keeps: tuple[str, ...]
    cut_rows: tuple[CutRow, ...]


def dimmed_path(kept: Collection[int], rows: int, columns: int) -> str:
    """Return the dropped cells of the grid as one SVG path, each run of a row as one rectangle."""
    parts = []
    for row in range(rows):
        for held, run in groupby(range(columns), key=lambda column: row * columns + column in kept):
            dropped = [] if held else list(run)
            parts += [f"M{dropped[0]} {row}h{len(dropped)}v1h-{len(dropped)}z"] if dropped else []
    return "".join(parts)


def sample(example: Example, folder: Path, name: str) -> PageSample:
    """Prepare an example for the page; cuts at ratio 1 are left out, since the whole picture stands beside.

    folder: where the path of its picture starts   name: id of the picture on the page
    """
    cuts = [cut for cut in example.cuts if cut.keep < 1]
    keeps = sorted({cut.keep for cut in cuts}, reverse=True)
    methods = drawn(list(dict.fromkeys(cut.method for cut in cuts)))
    by_place = {(cut.method, cut.keep): cut for cut in cuts}
    size, picture = _picture(None if example.image is None else folder / example.image)
    rows, columns = example.grid
    across, down = columns / size[0], rows / size[1]
    boxes = ((x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down) for x0, y0, x1, y1 in example.boxes)
    return PageSample(
        id=name, example=example, picture=picture, boxes=tuple(boxes), keeps=tuple(share(keep) for keep in keeps),
        cut_rows=tuple(
            CutRow(method=title(m), cuts=tuple(_page_cut(by_place.get((m, keep)), example) for keep in keeps))
            for m in methods
        ),
    )  # fmt: skip


def _page_cut(cut: ExampleCut | None, example: Example) -> PageCut | None:
    if cut is None:
        return None
    rows, columns = example.grid
    right = cut.answer == example.answer
    verdict = "right" if right else "wrong"
    return PageCut(
        keep=share(cut.keep),
        dimmed=dimmed_path(cut.kept, rows, columns),
        tokens=len(cut.kept),
        answer=cut.answer,
        right=right,
        words=f"{len(cut.kept)} of {rows * columns} tokens, {phrase(cut.method)}; answered {cut.answer}, {verdict}",
    )


def _picture(path: Path | None) -> tuple[tuple[int, int], str | None]:
    """Return the picture's size and a small data URI of it; None for a missing or broken file."""
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


def draw_strip(data: TradeoffData, pictures: Path, path: Path) -> Path | None:
    """Draw the first sample, whole and as the subject cut it, into a PNG file; None when no picture can be read.

    pictures: folder where the samples' paths start
    """
    for example in data.record.examples:
        cuts = sorted(
            (cut for cut in example.cuts if cut.method == data.subject and cut.keep < 1), key=lambda cut: -cut.keep
        )
        if cuts and example.image is not None and (pictures / example.image).is_file():
            return _draw(example, pictures / example.image, cuts, path)
    return None


def _draw(example: Example, picture: Path, cuts: list[ExampleCut], path: Path) -> Path:
    import numpy as np
    from matplotlib import font_manager
    from PIL import Image, ImageDraw, ImageFont

    side, gap = _STRIP_SIDE, _GAP
    with Image.open(picture) as opened:
        whole = np.asarray(opened.convert("RGB").resize((side, side)), dtype=np.float32)
    sheet = Image.new("RGB", ((len(cuts) + 1) * (side + gap) + gap, side + _TEXT + 2 * gap), LIGHT["surface"])
    face = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 26)
    pen = ImageDraw.Draw(sheet)
    rows, columns = example.grid
    everything = ExampleCut(method="", keep=1.0, kept=tuple(range(rows * columns)), answer=example.full_answer or "")
    for number, cut in enumerate([everything, *cuts]):
        held = np.full(rows * columns, _DIMMED, dtype=np.float32)
        held[list(cut.kept)] = 1.0
        mask = np.asarray(Image.fromarray(held.reshape(rows, columns)).resize((side, side), Image.Resampling.NEAREST))
        left = gap + number * (side + gap)
        sheet.paste(Image.fromarray((whole * mask[..., None]).astype(np.uint8)), (left, gap))
        mark, colour = ("\u2713", LIGHT["good"]) if cut.answer == example.answer else ("\u2717", LIGHT["bad"])
        name = f"all {rows * columns}" if cut.keep == 1 else f"{share(cut.keep)}: {len(cut.kept)}"
        pen.text((left, gap + side + gap // 2), name, font=face, fill=LIGHT["muted"])
        pen.text((left, gap + side + gap // 2 + 38), f"{mark} {cut.answer}", font=face, fill=colour)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return write_atomic(path, buffer.getvalue())
