"""TextVQA: `{"data": [...]}`, ten answers a question, pictures named by `image_id`.

Source: Singh et al., arXiv:1904.08920; CC BY 4.0, pictures Open Images'.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from salience.data.vqa.sample import Entry, text_of


def reads(content: Any) -> bool:
    """Whether this is such a list of questions."""
    rows = content.get("data") if isinstance(content, dict) else None
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "image_id" in rows[0]


def entries(content: Any, source: str) -> Iterator[Entry]:
    """The questions that have answers."""
    for number, row in enumerate(content["data"], start=1):
        where = f"{source}, row {number}"
        answers = tuple(str(each) for each in (row.get("answers") if isinstance(row, dict) else None) or ())
        if isinstance(row, dict) and not answers:
            continue  # the test split
        yield Entry(
            image=text_of(row, ("image_id",), where), question=text_of(row, ("question",), where), answers=answers,
            row=where,
        )  # fmt: skip
