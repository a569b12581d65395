"""JSON and JSONL files, read strictly: numbers keep their text, and no key may repeat."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.lab.data.readers.text_files import place, read_text


@dataclass(frozen=True, kw_only=True)
class JsonLine:
    """One value. number: of the row, without blank lines, from 1   line: of the file, from 1; 0 in a JSON list"""

    value: Any
    number: int
    line: int


class Written(float):
    """A number that keeps its text: 7 prints as 7, 7.0 as 7.0 and 1.10 as 1.10."""

    def __new__(cls, text: str) -> Written:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __str__(self) -> str:
        return self.text


def read_json(file: Path, name: str = "") -> Any:
    """Return the content of a JSON file; a list of `JsonLine` for a JSON list and a file with one value a line.

    name: of the file in messages

    Raises:  ValueError, one sentence with the line, for other content, and for a key that an object has twice
    """
    name = name or file.name
    text = read_text(file, name)
    if not text.strip():
        raise ValueError(f"{name} is empty.")
    begins = text.lstrip()[0]
    by_line = file.suffix.lower() in (".jsonl", ".ndjson")
    if not by_line or begins == "[":
        try:
            found = _parsed(text)
            if not isinstance(found, list):
                return found
            return [JsonLine(value=value, number=number, line=0) for number, value in enumerate(found, start=1)]
        except json.JSONDecodeError as error:
            if error.msg != "Extra data" or (begins == "[" and not by_line):
                raise ValueError(f"{name}, line {error.lineno} is no JSON ({error.msg}).") from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return _by_line(text, name)


def _by_line(text: str, name: str) -> list[JsonLine]:
    """Read one JSON value a line. Only a line feed ends a line, because JSON strings may hold other separators."""
    rows: list[JsonLine] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        where = f"{name}, {place(len(rows) + 1, line)}"
        try:
            rows.append(JsonLine(value=_parsed(content), number=len(rows) + 1, line=line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is no JSON ({error.msg}).") from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return rows


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_float=Written)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse equal keys, of which JSON readers silently take the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice!r} twice.")
    return found
