"""A figure as SVG on the page, and as SVG and PNG files."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salience.core.files import write_atomic
from salience.lab.report.kit.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_FONT = re.compile(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'(?:, [^;\"]*)?")
_ID = re.compile(r'\bid="([^"]+)"')
_METHOD = re.compile(r'\bid="m-([\w.-]+?)--([\w]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)')


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


def inline(svg: str, name: str, description: str) -> str:
    """Return the figure as inline SVG: no header, unique ids, theme colours, the page's font.

    Args: svg: as matplotlib wrote it, in the light theme    name: prefix of its ids    description: aria-label
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # it names outside addresses
    head, body = svg[svg.index("<svg") :].strip().split(">", 1)
    head = re.sub(r'\s(?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", head)
    svg = f"{head}>{body}"
    svg = _METHOD.sub(r'data-m="\1"', svg)
    svg = _ID.sub(rf'id="{name}-\1"', svg)
    svg = _REFERENCE.sub(rf"\1{name}-", svg).replace("xlink:href", "href")
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    svg = _FONT.sub(r"\1var(--sans)", svg)
    text = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{text}"', 1)


def standalone(svg: str) -> str:
    """The figure as a file of its own: without metadata and with fallback fonts."""
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return _FONT.sub(r"\1'DejaVu Sans', system-ui, 'Helvetica Neue', Arial, sans-serif", svg)
