"""A figure's SVG inside a page: no header, unique ids, theme colours, the page's font."""

import re

from salience.lab.report.kit.palette import LIGHT

_FONT = re.compile(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'(?:, [^;\"]*)?")
_ID = re.compile(r'\bid="([^"]+)"')
_METHOD = re.compile(r'\bid="m-([\w.-]+?)--([\w]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)')


def bare(svg: str) -> str:
    """The <svg> element alone: no XML header, no metadata (it names outside addresses), no fixed size."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].strip()
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", head)
    return f"{head}>{body}"


def inline(svg: str, name: str, description: str) -> str:
    """The figure for the page.

    Args: svg: as matplotlib wrote it, in the light theme    name: prefix that keeps ids apart from other figures'
          description: what it shows, for those who can't see it; plain text
    """
    svg = bare(svg)
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
