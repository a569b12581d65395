"""POPE: one object a line, with `image`, `text` and a `label` yes or no. The file's name tells how objects were drawn.

Source: Li et al., arXiv:2305.10355; MIT, pictures COCO's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from salience.lab.data.vqa.question_file import QuestionFile
from salience.lab.data.vqa.sample import Entry, text_of

_DRAWS = ("random", "popular", "adversarial")
_LABELS = ("yes", "no")


def reads(content: QuestionFile) -> bool:
    """Whether the file has such lines."""
    return isinstance(content.first, dict) and {"image", "text", "label"} <= content.first.keys()


def entries(content: QuestionFile) -> Iterator[Entry]:
    """Return the entries, each with the choices yes and no."""
    kind = next((draw for draw in _DRAWS if draw in PurePath(content.source).stem.lower()), "")
    for row, where in content.rows():
        image, question, label = (text_of(row, (name,), where) for name in ("image", "text", "label"))
        if label.lower() not in _LABELS:
            raise ValueError(
                f"{where}: its label must be yes or no, not {label!r}; a table with image, text and label is read as "
                "POPE's: name its columns image, question and answer where other answers are meant."
            )
        yield Entry(
            image=image, question=question, answers=(label.lower(),), choices=_LABELS, kind=kind, source=content.source,
            row=where,
        )  # fmt: skip
