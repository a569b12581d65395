"""Docstrings as Markdown: a griffe extension for the API pages.

Our docstrings have short sections, `Args:    x: ...   y: ...`, `Returns: ...` and `Raises:  ...`, whose further lines are
indented. They become lists and paragraphs here. Other text stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Source|Deviation|Shapes|Glossary):\s*")
_ARGUMENT = re.compile(r"(?:^|(?<=\s{3}))(?=[A-Za-z_*][\w*, ]{0,50}: )")


class Sections(griffe.Extension):
    """Rewrites every docstring that griffe reads."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The docstring with its sections as Markdown lists."""
    out: list[str] = []
    title, lines = "", list[str]()
    for line in [*text.splitlines(), ""]:
        found = _SECTION.match(line)
        if title and not found and line.startswith("  "):
            lines.append(line.strip())
            continue
        if title:
            out += _section(title, lines)
            title = ""
        if found:
            title, lines = found[1], [line[found.end() :].strip()]
        else:
            out.append(_escaped(line))
    return "\n".join(out).strip()


def _section(title: str, lines: list[str]) -> list[str]:
    if title != "Args":
        return ["", f"**{title}:** {_escaped(' '.join(lines))}", ""]
    items: list[str] = []
    for line in lines:
        parts = [part.strip() for part in _ARGUMENT.split(line)]
        if parts[0] and not items:
            items.append(parts[0])
        elif parts[0]:
            items[-1] += f" {parts[0]}"
        items += parts[1:]
    return ["", "**Args:**", "", *(f"- {_named(item)}" for item in items if item), ""]


def _named(item: str) -> str:
    name, colon, rest = item.partition(": ")
    return f"`{name}`: {_escaped(rest)}" if colon else _escaped(item)


def _escaped(line: str) -> str:
    """The line with `<` and `*` outside of code as characters, not as HTML or emphasis; indented lines are code."""
    if line.startswith("    "):
        return line
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(p if p.startswith("`") else p.replace("<", "&lt;").replace("*", r"\*") for p in parts)
