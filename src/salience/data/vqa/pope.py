"""POPE: a line an object, `image`, `text` and `label` yes or no; the file's name says how objects were drawn.

Source: Li et al., arXiv:2305.10355; MIT, pictures COCO's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from salience.data.vqa.sample import Entry, text_of

_DRAWS = ("random", "popular", "adversarial")


def reads(content: Any) -> bool:
    """Whether these are such lines."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and {
        "image", "text", "label",
    } <= content[0].keys()  # fmt: skip


def entries(content: Any, source: str) -> Iterator[Entry]:
    """The questions, each with the choices yes and no."""
    kind = next((draw for draw in _DRAWS if draw in PurePath(source).stem.lower()), "")
    for number, row in enumerate(content, start=1):
        where = f"{source}, row {number}"
        yield Entry(
            image=text_of(row, ("image",), where), question=text_of(row, ("text",), where),
            answers=(text_of(row, ("label",), where).lower(),), choices=("yes", "no"), kind=kind, row=where,
        )  # fmt: skip
