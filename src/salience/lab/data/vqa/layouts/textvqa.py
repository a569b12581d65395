"""TextVQA: `{"data": [...]}`, ten answers a question, pictures named by `image_id`.

Source: Singh et al., arXiv:1904.08920; CC BY 4.0, pictures Open Images'.
"""

from __future__ import annotations

from collections.abc import Iterator

from salience.lab.data.vqa.answer_lists import several
from salience.lab.data.vqa.question_file import QuestionFile
from salience.lab.data.vqa.sample import Entry, text_of


def reads(content: QuestionFile) -> bool:
    """Whether the file is such a list of questions."""
    rows = content.value.get("data") if isinstance(content.value, dict) else None
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "image_id" in rows[0]


def entries(content: QuestionFile) -> Iterator[Entry]:
    """Return the entries; none for a test split, whose rows have no answers."""
    rows = content.value["data"]
    if all(isinstance(row, dict) and not row.get("answers") for row in rows):
        return
    for number, row in enumerate(rows, start=1):
        where = f"{content.source}, row {number}"
        image, answers = text_of(row, ("image_id",), where), several(row.get("answers"), "answers", where)
        if not answers:
            raise ValueError(f"{where} has no answers, but other rows of the file have.")
        yield Entry(
            image=image, question=text_of(row, ("question",), where), answers=answers, source=content.source, row=where
        )
