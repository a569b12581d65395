"""A figure on the page and as files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salience.core.files import write_atomic
from salience.lab.report.kit.svg import inline, standalone

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class PageFigure:
    """A figure on the page. name: of its files   svg: inline, safe markup"""

    name: str
    title: str
    caption: str
    svg: str


def write_figure(figure: Figure, folder: Path, name: str, title: str, caption: str) -> PageFigure:
    """Write `<name>.svg` and `<name>.png` into the folder. Returns the figure for the page."""
    text, raster = io.StringIO(), io.BytesIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    figure.savefig(raster, format="png", dpi=180)
    write_atomic(folder / f"{name}.svg", standalone(text.getvalue()))
    write_atomic(folder / f"{name}.png", raster.getvalue())
    svg = inline(text.getvalue(), name, f"Figure: {title}. {caption}")
    return PageFigure(name=name, title=title, caption=caption, svg=svg)
