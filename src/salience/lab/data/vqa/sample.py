"""Questions about pictures on disk, with all accepted answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salience.lab.data.readers.picture_decoding import open_picture
from salience.lab.data.readers.text_files import failed_formula

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class AskedRow:
    """A question in a file.

    answers: of each person asked (ten in VQAv2 and TextVQA), or one   choices: to choose from, if any
    kind: of question, as the data call it   row: "file, row 3, line 4", for messages
    """

    question: str
    answers: tuple[str, ...]
    row: str
    kind: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Entry(AskedRow):
    """A question before its picture is found. source: the file's path below the folder"""

    image: str
    source: str


@dataclass(frozen=True, kw_only=True)
class VqaSample(AskedRow):
    """A question whose picture is a file. picture: its number in the task"""

    path: Path
    picture: int

    @property
    def answer(self) -> str:
        """The answer that most people gave; of equally common ones the first."""
        return commonest(self.answers)

    @property
    def image(self) -> Image:
        """The picture, read from disk at every call.

        Raises:  ValueError, one sentence that names the row, where it is missing, broken or cut off
        """
        try:
            return open_picture(self.path)
        except ValueError as error:
            raise ValueError(f"{self.row}: {error}") from error


def commonest(answers: Sequence[str]) -> str:
    """The answer that most people gave; of equally common ones the first."""
    return Counter(answers).most_common(1)[0][0]


def text_of(row: object, names: Sequence[str], where: str) -> str:
    """Return the first of these fields that a row has, as text. Numbers keep their text.

    An empty field is not replaced by the next name: a table's `text` or `label` may differ from its `question` or
    `answer`.

    Raises:  ValueError that names the row, for a missing field, a value that is NaN, a truth value or no text, and for
             a row that is no object
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object with fields but {type(row).__name__}.")
    name = next((name for name in names if name in row), None)
    if name is None:
        raise ValueError(f"{where} has no {' or '.join(names)}.")
    if isinstance(row[name], str) and failed_formula(row[name]):
        raise ValueError(f"{where} has no {name} (it is {row[name].strip()}, a formula that failed).")
    return plain_text(row[name], name, where)


def plain_text(value: object, name: str, where: str) -> str:
    """Return a text or a number as text. Raises ValueError that names the row, for any other value."""
    if isinstance(value, bool):
        raise ValueError(f'{where}: its {name} is {str(value).lower()}, but text or a number is needed, such as "yes".')
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} has no {name} (it is {'NaN' if math.isnan(value) else value}).")
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{where} has no {name} (it is {'null' if value is None else 'empty'}).")
    if not isinstance(value, str | int | float):
        kind = "a list" if isinstance(value, list) else "an object"
        raise ValueError(f"{where}: its {name} is {kind}, but text or a number is needed.")
    text = str(value).strip()
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{where}: its {name} holds half of a surrogate pair, which is no letter.")
    return text


def kind_of(row: dict[str, object], names: Sequence[str]) -> str:
    """Return the kind of question from the first of these fields that has one, else an empty text."""
    values = (row.get(name) for name in names)
    texts = (str(value).strip() for value in values if isinstance(value, str | int) and not isinstance(value, bool))
    return next(filter(None, texts), "")
