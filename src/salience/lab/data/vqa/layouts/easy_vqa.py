"""easy-VQA: one coloured shape on a picture of 64 x 64 pixels; an external benchmark in a package.

Its folder has `train` and `test`, each with `questions.json`, a list of [question, answer, picture number], and
`images/<number>.png`. 4,000 and 1,000 pictures, 38,575 and 9,673 questions, 13 answers.

Source: Victor Zhou, github.com/vzhou842/easy-VQA, package easy-vqa; MIT.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from salience.lab.data.vqa.question_file import QuestionFile
from salience.lab.data.vqa.sample import Entry, plain_text

_COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")


def reads(content: QuestionFile) -> bool:
    """Whether the file is a list of such triples."""
    first = content.first
    return isinstance(first, list) and len(first) == 3 and isinstance(first[0], str) and isinstance(first[2], int)


def entries(content: QuestionFile) -> Iterator[Entry]:
    """Return the entries; `kind` is the kind of answer: yes-no, colour or shape."""
    for row, where in content.rows():
        if not (isinstance(row, list) and len(row) == 3):
            raise ValueError(f"{where} is not [question, answer, picture number].")
        question, answer, image = (
            plain_text(value, name, where)
            for value, name in zip(row, ("question", "answer", "picture number"), strict=True)
        )
        kind = "yes-no" if answer in ("yes", "no") else "colour" if answer in _COLOURS else "shape"
        choices = ("yes", "no") if kind == "yes-no" else ()
        yield Entry(
            image=f"{image}.png", question=question, answers=(answer,), choices=choices, kind=kind,
            source=content.source, row=where,
        )  # fmt: skip


def folder() -> Path:
    """Return the data folder of the installed package. Raises ValueError, saying what to install, without it."""
    found = importlib.util.find_spec("easy_vqa")
    if found is None or found.origin is None:
        raise ValueError("task 'easy-vqa' needs the package 'easy-vqa': pip install 'salience[easy-vqa]'.")
    return Path(found.origin).parent / "data"
