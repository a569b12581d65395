"""GQA: one object, question number -> question, one answer each; pictures named by `imageId`.

Source: Hudson and Manning, arXiv:1902.09506; questions CC BY 4.0, pictures Visual Genome's.
"""

from __future__ import annotations

from collections.abc import Iterator

from salience.lab.data.vqa.question_file import QuestionFile
from salience.lab.data.vqa.sample import Entry, kind_of, text_of


def reads(content: QuestionFile) -> bool:
    """Whether the file is such an object."""
    first = next(iter(content.value.values()), None) if isinstance(content.value, dict) else None
    return isinstance(first, dict) and "imageId" in first and "question" in first


def entries(content: QuestionFile) -> Iterator[Entry]:
    """Return the entries; none for a test split, whose rows have no answers."""
    rows = content.value.values()
    if all(isinstance(row, dict) and row.get("answer") is None for row in rows):
        return
    for key, row in content.value.items():
        where = f"{content.source}, question {key}"
        image, kinds = text_of(row, ("imageId",), where), row.get("types")
        yield Entry(
            image=image, question=text_of(row, ("question",), where), answers=(text_of(row, ("answer",), where),),
            source=content.source, row=where, kind=kind_of(kinds, ("structural",)) if isinstance(kinds, dict) else "",
        )  # fmt: skip
