"""A picture file of the first sample: what the subject kept of it at every ratio, for a README or a slide."""

from __future__ import annotations

import io
from pathlib import Path

from salience.core.files import write_atomic
from salience.core.result_tables import Example, ExampleCut
from salience.lab.report.kit.palette import LIGHT
from salience.lab.report.kit.words import share
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

#: What is left of a dropped cell's brightness.
DIMMED = 0.22
_SIDE, _GAP, _TEXT = 168, 10, 46


def draw_strip(data: TradeoffData, pictures: Path, path: Path) -> Path | None:
    """Write the whole picture, then the subject's cuts. Returns the path; None when no picture can be read.

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

    scale = 2
    side, gap, text = _SIDE * scale, _GAP * scale, _TEXT * scale
    with Image.open(picture) as opened:
        whole = np.asarray(opened.convert("RGB").resize((side, side)), dtype=np.float32)
    sheet = Image.new("RGB", ((len(cuts) + 1) * (side + gap) + gap, side + text + 2 * gap), LIGHT["surface"])
    face = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 13 * scale)
    pen = ImageDraw.Draw(sheet)
    rows, columns = example.grid
    everything = ExampleCut(method="", keep=1.0, kept=tuple(range(rows * columns)), answer=example.full_answer or "")
    for number, cut in enumerate([everything, *cuts]):
        held = np.full(rows * columns, DIMMED, dtype=np.float32)
        held[list(cut.kept)] = 1.0
        mask = np.asarray(Image.fromarray(held.reshape(rows, columns)).resize((side, side), Image.Resampling.NEAREST))
        left = gap + number * (side + gap)
        sheet.paste(Image.fromarray((whole * mask[..., None]).astype(np.uint8)), (left, gap))
        mark, colour = ("\u2713", LIGHT["good"]) if cut.answer == example.answer else ("\u2717", LIGHT["bad"])
        name = f"all {rows * columns}" if cut.keep == 1 else f"{share(cut.keep)}: {len(cut.kept)}"
        pen.text((left, gap + side + gap // 2), name, font=face, fill=LIGHT["muted"])
        pen.text((left, gap + side + gap // 2 + 19 * scale), f"{mark} {cut.answer}", font=face, fill=colour)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return write_atomic(path, buffer.getvalue())
