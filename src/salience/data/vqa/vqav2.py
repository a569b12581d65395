"""VQAv2: `*questions.json` beside `*annotations.json`, ten answers a question, pictures named by COCO number.

Source: visualqa.org; questions and annotations CC BY 4.0, pictures COCO's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from salience.data.vqa.sample import Entry, text_of


def reads(content: Any) -> bool:
    """Whether this is a file of questions."""
    return isinstance(content, dict) and isinstance(content.get("questions"), list)


def answers_by_question(content: Any) -> dict[str, Any]:
    """question id -> annotation, of a file that has them; else empty."""
    listed = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        return {}
    return {str(each.get("question_id")): each for each in listed if isinstance(each, dict)}


def entries(content: Any, source: str, answers: Mapping[str, Any]) -> Iterator[Entry]:
    """The questions that have an answer. answers: `answers_by_question` of all files beside this one."""
    for number, row in enumerate(content["questions"], start=1):
        where = f"{source}, row {number}"
        annotation = answers.get(text_of(row, ("question_id",), where))
        if annotation is None:
            continue  # a test split's answers are not published
        told = [each.get("answer") if isinstance(each, dict) else each for each in annotation.get("answers") or ()]
        given = [str(each) for each in told if each is not None] or [
            text_of(annotation, ("multiple_choice_answer",), where)
        ]
        yield Entry(
            image=text_of(row, ("image", "image_id"), where), question=text_of(row, ("question",), where),
            answers=tuple(given), kind=str(annotation.get("answer_type") or ""), row=where,
            choices=tuple(map(str, row.get("multiple_choices") or ())),
        )  # fmt: skip
