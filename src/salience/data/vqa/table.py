"""A table of one's own, as CSV, TSV, JSONL or a JSON list: `image`, `question` and `answer`, or `answers`.

Further columns that are read: `choices` (a list, or text with | between), and `kind` or `category`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from salience.data.vqa.sample import Entry, text_of

_IMAGE, _QUESTION = ("image", "image_path", "image_id", "file_name"), ("question", "text")
_ANSWER, _KIND = ("answer", "label"), ("kind", "category", "answer_type")


def reads(content: Any) -> bool:
    """Whether these are rows with a picture and a question."""
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    return any(name in content[0] for name in _IMAGE) and any(name in content[0] for name in _QUESTION)


def entries(content: Any, source: str) -> Iterator[Entry]:
    """Every row."""
    for number, row in enumerate(content, start=1):
        where = f"{source}, row {number}"
        image, question = text_of(row, _IMAGE, where), text_of(row, _QUESTION, where)
        answers = _several(row.get("answers")) or (text_of(row, _ANSWER, where),)
        kind = next((str(row[name]).strip() for name in _KIND if row.get(name)), "")
        choices = _several(row.get("choices"))
        if choices and answers[0] not in choices:
            raise ValueError(f"{where}: its answer {answers[0]!r} is none of its choices {', '.join(choices)}.")
        yield Entry(image=image, question=question, answers=answers, choices=choices, kind=kind, row=where)


def _several(value: Any) -> tuple[str, ...]:
    """A list, a JSON list as text, or text with | between."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return (value,)
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split("|") if part.strip())
    return tuple(str(part) for part in value) if isinstance(value, list | tuple) else ()
