"""GQA: one object, question number -> question, one answer each; pictures named by `imageId`.

Source: Hudson and Manning, arXiv:1902.09506; questions CC BY 4.0, pictures Visual Genome's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from salience.data.vqa.sample import Entry, text_of


def reads(content: Any) -> bool:
    """Whether this is such an object."""
    first = next(iter(content.values()), None) if isinstance(content, dict) else None
    return isinstance(first, dict) and "imageId" in first and "question" in first


def entries(content: Any, source: str) -> Iterator[Entry]:
    """The questions that have an answer."""
    for key, row in content.items():
        where = f"{source}, question {key}"
        if isinstance(row, dict) and row.get("answer") is None:
            continue  # the test splits
        kinds = row.get("types") if isinstance(row, dict) else None
        yield Entry(
            image=text_of(row, ("imageId",), where), question=text_of(row, ("question",), where),
            answers=(text_of(row, ("answer",), where),), row=where,
            kind=str(kinds.get("structural") or "") if isinstance(kinds, dict) else "",
        )  # fmt: skip
