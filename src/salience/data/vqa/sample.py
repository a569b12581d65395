"""One question about one picture on disk, with every answer that counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salience.data.pictures import open_picture

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a questions file, before its picture is found. row: "file, row 3", for sentences about it."""

    image: str
    question: str
    answers: tuple[str, ...]
    row: str
    kind: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VqaSample:
    """A question whose picture is a file.

    answers: one for each person asked (ten in VQAv2 and TextVQA), or the only one   choices: to choose from, if any
    kind: the data's own word for what sort of question it is   picture: number of the picture among the task's
    row: where it stands, for sentences about it
    """

    path: Path
    question: str
    answers: tuple[str, ...]
    kind: str
    picture: int
    row: str
    choices: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The answer that most people gave, the earliest of equals."""
        return Counter(self.answers).most_common(1)[0][0]

    @property
    def image(self) -> Image:
        """The picture, read anew at every call.

        Raises: ValueError, one sentence that names the row, when it is missing, broken or cut off
        """
        try:
            return open_picture(self.path)
        except ValueError as error:
            raise ValueError(f"{self.row}: {error}") from error


def text_of(row: object, names: Sequence[str], where: str) -> str:
    """The first of these fields that a row has, as text.

    Raises: ValueError naming the row when it has none of them, or is no object
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object with fields but {type(row).__name__}.")
    for name in names:
        value = row.get(name)
        if isinstance(value, str | int | float) and str(value).strip():
            return str(value).strip()
    raise ValueError(f"{where} has no {' or '.join(names)}.")
