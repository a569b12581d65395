"""JSON and JSONL files, read strictly.

The standard library reads them. pandas and polars guess types, and would read "07" as 7.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.lab.data.readers.text_files import place, read_text


@dataclass(frozen=True, kw_only=True)
class JsonLine:
    """value: what the line says   number: of the row, blank lines aside, from 1   line: of the file, from 1"""

    value: Any
    number: int
    line: int


class Written(float):
    """A number that is shown as it was written: 7 as 7, 7.0 as 7.0 and 1.10 as 1.10."""

    def __new__(cls, text: str) -> Written:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __str__(self) -> str:
        return self.text


class NoJsonError(ValueError):
    """A row that is no JSON. line: of the file   reason: as the reader has it"""

    def __init__(self, sentence: str, line: int, reason: str) -> None:
        super().__init__(sentence)
        self.line, self.reason = line, reason


def read_json(file: Path, name: str = "") -> Any:
    """Content of a JSON file, or a list of `JsonLine` where it has one object a line. name: what sentences call it

    Raises:  ValueError, one sentence with the line, for what is neither, and for a key that is there twice
    """
    name = name or file.name
    text = read_text(file, name)
    if not text.strip():
        raise ValueError(f"{name} is empty.")
    begins = text.lstrip()[0]
    by_line = file.suffix.lower() in (".jsonl", ".ndjson")
    if not by_line or begins == "[":
        try:
            return _parsed(text)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data" or (begins == "[" and not by_line):
                sentence = f"{name}, line {error.lineno} is no JSON ({error.msg})."
                raise NoJsonError(sentence, error.lineno, error.msg) from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return json_lines(text, name)


def json_lines(text: str, name: str) -> list[JsonLine]:
    """One JSON value a line; lines end at a line feed alone, as JSON's own strings may hold all other separators.

    Raises:  ValueError naming the row that is no JSON
    """
    rows: list[JsonLine] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        where = f"{name}, {place(len(rows) + 1, line)}"
        try:
            rows.append(JsonLine(value=_parsed(content), number=len(rows) + 1, line=line))
        except json.JSONDecodeError as error:
            raise NoJsonError(f"{where} is no JSON ({error.msg}).", line, error.msg) from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return rows


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_float=Written)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON's readers take the last of two equal keys, and say nothing."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice!r} twice.")
    return found
