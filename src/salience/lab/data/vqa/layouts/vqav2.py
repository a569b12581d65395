"""VQAv2: `*questions.json` beside `*annotations.json`, ten answers a question, pictures named by COCO number.

Source: visualqa.org; questions and annotations CC BY 4.0, pictures COCO's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from salience.lab.data.vqa.answer_lists import several
from salience.lab.data.vqa.question_file import QuestionFile
from salience.lab.data.vqa.sample import Entry, kind_of, text_of


def reads(content: QuestionFile) -> bool:
    """Whether the file has a list of questions."""
    return isinstance(content.value, dict) and isinstance(content.value.get("questions"), list)


def answers_by_question(contents: Iterable[QuestionFile]) -> dict[str, Any]:
    """Return question id -> annotation from all files that have annotations.

    Raises:  ValueError where two annotations of one question differ
    """
    found: dict[str, Any] = {}
    for content in contents:
        listed = content.value.get("annotations") if isinstance(content.value, dict) else None
        for each in listed if isinstance(listed, list) else ():
            if not isinstance(each, dict) or each.get("question_id") is None:
                continue  # COCO's own annotations have no question
            key = str(each["question_id"])
            if found.setdefault(key, each) != each:
                raise ValueError(f"{content.source}: question {key} has other answers in another file beside it.")
    return found


def entries(content: QuestionFile, answers: Mapping[str, Any]) -> Iterator[Entry]:
    """Return the entries of answered questions. answers: `answers_by_question` of all files beside this one"""
    for number, row in enumerate(content.value["questions"], start=1):
        where = f"{content.source}, row {number}"
        annotation = answers.get(text_of(row, ("question_id",), where))
        if annotation is None:
            continue  # a test split's answers are not published
        given = several(annotation.get("answers"), "answers", where) or (
            text_of(annotation, ("multiple_choice_answer",), where),
        )
        yield Entry(
            image=text_of(row, ("image", "image_id"), where), question=text_of(row, ("question",), where),
            answers=given, kind=kind_of(annotation, ("answer_type",)), source=content.source, row=where,
            choices=several(row.get("multiple_choices"), "multiple_choices", where),
        )  # fmt: skip
