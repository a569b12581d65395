"""Docstrings as Markdown: a griffe extension for the API pages.

Our docstrings have short sections, `Args:    x: ...   y: ...`, `Returns: ...` and `Raises:  ...`, whose further lines are
indented, and paragraphs that describe fields, `x: ...`, one on each line. Both become lists here. Other text stays.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Source|Deviation|Shapes|Glossary):\s*")
_NAMES = r"\*{0,2}[A-Za-z_]\w*(?:, \*{0,2}[A-Za-z_]\w*){0,5}: "
_ARGUMENT = re.compile(rf"(?:^|(?<=\s{{3}}))(?={_NAMES})")
_FIELD = re.compile(rf"^(?=[a-z_*]|[A-Z]\b){_NAMES}")  # "Note: ..." is prose


class Sections(griffe.Extension):
    """Rewrites every docstring that griffe reads."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The docstring with its sections and fields as Markdown lists."""
    out: list[str] = []
    title, lines = "", list[str]()  # the section that is being read; title "" for fields
    for line in [*text.splitlines(), ""]:
        section, field = _SECTION.match(line), _FIELD.match(line) and not _in_prose(out, lines)
        if lines and not section and (line.startswith("  ") if title else line.strip() and not field):
            lines.append(line.strip())
        elif lines and not title and field:
            lines.append(line)
        else:
            out += _section(title, lines) if lines else []
            title, lines = "", []
            if section:
                title, lines = section[1], [line[section.end() :].strip()]
            elif field:
                lines = [line]
            else:
                out.append(_escaped(line))
    return "\n".join(out).strip()


def _in_prose(out: list[str], lines: list[str]) -> bool:
    """Whether a paragraph has begun already, so that a colon in its next line names no field."""
    return not lines and bool(out) and bool(out[-1].strip())


def _section(title: str, lines: list[str]) -> list[str]:
    if title not in ("", "Args"):
        return ["", f"**{title}:** {_escaped(' '.join(lines))}", ""]
    items: list[str] = []
    for line in lines:
        before, *parts = [part.strip() for part in _ARGUMENT.split(line)]
        if before and items:
            items[-1] += f" {before}"
        elif before:
            items.append(before)
        items += parts
    return ["", *([f"**{title}:**", ""] if title else []), *(f"- {_named(item)}" for item in items), ""]


def _named(item: str) -> str:
    name, colon, rest = item.partition(": ")
    return f"`{name}`: {_escaped(rest)}" if colon else _escaped(item)


def _escaped(line: str) -> str:
    """The line with `<` and `*` outside of code as characters, not as HTML or emphasis; indented lines are code."""
    if line.startswith("    "):
        return line
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(p if p.startswith("`") else p.replace("<", "&lt;").replace("*", r"\*") for p in parts)
