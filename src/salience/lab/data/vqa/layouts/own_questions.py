"""Your own table as CSV, TSV, JSONL or a JSON list: `image`, `question` and `answer`, or `answers`.

Further columns are `choices` (a list, or text with | between), and `kind` or `category`. The case of a column's name
makes no difference. `answers` is a list as JSON, pandas or numpy writes it, or text with | between. An answer keeps its
text: 07 stays 07, and nan, NA and None are words. A missing value (an empty cell, null, NaN in JSON) is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from salience.lab.data.readers.text_files import MISSING, NUMBER
from salience.lab.data.vqa.answer_lists import answers_in, several
from salience.lab.data.vqa.question_file import COLUMNS, QuestionFile
from salience.lab.data.vqa.sample import Entry, commonest, kind_of, text_of

_NOTHING = ("nan", "NaN", "None", "null", "<NA>")  # how programs write a missing value


def reads(content: QuestionFile) -> bool:
    """Whether the file has rows with a picture and a question."""
    if not isinstance(content.first, dict):
        return False
    return all(any(name in content.first for name in COLUMNS[kind]) for kind in ("image", "question"))


def entries(content: QuestionFile) -> list[Entry]:
    """Return the entries of all rows. An answer must be one of the row's choices."""
    found = [_entry(row, where, content) for row, where in content.rows()]
    names = ("answers", *COLUMNS["answer"])
    given = [next((row[name] for name in names if row.get(name)), "") for row, _ in content.rows()]
    _require_no_gaps(found, [value if isinstance(value, str) else "" for value in given])
    return found


def _entry(row: Any, where: str, content: QuestionFile) -> Entry:
    image, question = text_of(row, COLUMNS["image"], where), text_of(row, COLUMNS["question"], where)
    if question in _NOTHING:
        raise ValueError(f"{where} has no question (it is {question}).")
    answers = several(row.get("answers"), "answers", where) or _one(row, where, content)
    choices = several(row.get("choices"), "choices", where)
    if choices and commonest(answers) not in choices:
        raise ValueError(f"{where}: its answer {commonest(answers)!r} is none of its choices {', '.join(choices)}.")
    if choices and (len(choices) < 2 or len(set(choices)) < len(choices)):
        raise ValueError(f"{where}: its choices must be two or more that differ, not {', '.join(choices)}.")
    return Entry(
        image=image, question=question, answers=answers, choices=choices, kind=kind_of(row, COLUMNS["kind"]),
        source=content.source, row=where,
    )  # fmt: skip


def _one(row: dict[str, Any], where: str, content: QuestionFile) -> tuple[str, ...]:
    name = next((name for name in COLUMNS["answer"] if name in row), None)
    if name is None or not isinstance(row[name], list):
        text_of(row, COLUMNS["answer"], where)  # raises where there is none
    assert name is not None
    answers = answers_in(row[name], where)
    if not answers:
        raise ValueError(f"{where} has no {name} (its list is empty).")
    if content.header is not None and "|" in answers[0] and len(answers) == 1:
        raise ValueError(f"{where}: its answer {answers[0]!r} holds a |; put several answers into a column 'answers'.")
    return answers


def _require_no_gaps(found: Sequence[Entry], cells: Sequence[str]) -> None:
    """Refuse "nan", NA and the like in a column of numbers or lists. Elsewhere they are words."""
    missing = [cell.strip() in MISSING for cell in cells]
    gaps = [entry for entry, gap in zip(found, missing, strict=True) if gap]
    others = [entry for entry, gap in zip(found, missing, strict=True) if not gap]
    numbers = others and all(NUMBER.fullmatch(answer) for entry in others for answer in entry.answers)
    if gaps and (numbers or any(cell.lstrip().startswith("[") for cell in cells)):
        kind = "numbers" if numbers else "lists"
        raise ValueError(f"{gaps[0].row} has no answer (it is {gaps[0].answers[0]}, and others are {kind}).")
