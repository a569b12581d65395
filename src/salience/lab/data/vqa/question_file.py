"""Files of questions, before their layout is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.lab.data.readers.strict_csv import read_sheet
from salience.lab.data.readers.strict_json import JsonLine, read_json
from salience.lab.data.readers.text_files import column_name, place

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
#: Content -> names of its column in a user's table. The first one that a row has is read, even where it is empty.
COLUMNS = {
    "image": ("image", "image_path", "file_name", "image_id"),
    "question": ("question", "text"),
    "answer": ("answer", "label"),
    "answers": ("answers",),
    "choices": ("choices",),
    "kind": ("kind", "category", "answer_type"),
}


@dataclass(frozen=True, kw_only=True)
class QuestionFile:
    """One file.

    source: path below the folder   value: the parsed JSON, or the list of a table's rows
    places: of each item of the list, "row 3, line 4"   header: columns of a CSV file, None for JSON
    """

    source: str
    value: Any
    places: Sequence[str] = ()
    header: tuple[str, ...] | None = None

    def rows(self) -> Iterator[tuple[Any, str]]:
        """Iterate over the items of a list with their places: "file, row 3, line 4"."""
        for item, its_place in zip(self.value, self.places, strict=True):
            yield item, f"{self.source}, {its_place}"

    @property
    def first(self) -> Any:
        """First item of a list, or None."""
        return self.value[0] if isinstance(self.value, list) and self.value else None

    @property
    def columns(self) -> list[str]:
        """Names of the columns: keys of the first object, or the header of a table without rows."""
        return list(self.first if isinstance(self.first, dict) else self.header or ())


def read_content(file: Path, source: str) -> QuestionFile:
    """Read a file with a suffix of SUFFIXES. Raises ValueError, one sentence with the row, where it can't be read."""
    if file.suffix.lower() in (".csv", ".tsv"):
        return _table(file, source)
    value = read_json(file, source)
    if isinstance(value, list) and len(value) == 1 and value[0].line and isinstance(value[0].value, dict):
        value = value[0].value  # perhaps a whole JSON document in one line
    if isinstance(value, dict) and not _is_row(value):
        return QuestionFile(source=source, value=value)
    rows = value if isinstance(value, list) else [JsonLine(value=value, number=1, line=0)]
    places = [place(row.number, row.line) for row in rows]
    values = [_named(row.value, source, its_place) for row, its_place in zip(rows, places, strict=True)]
    return QuestionFile(source=source, value=values, places=places)


def needs_of(columns: Sequence[str]) -> list[str]:
    """Return those of image, question and answer that the columns lack."""
    held = {kind for kind, names in COLUMNS.items() if any(name in columns for name in names)}
    held |= {"answer"} if "answers" in held else set()
    return [kind for kind in ("image", "question", "answer") if kind not in held]


def _is_row(item: dict[str, Any]) -> bool:
    by_columns = all(isinstance(value, dict | list) for value in item.values())  # as pandas writes a table by default
    return not by_columns and len(needs_of([column_name(key) for key in item])) < 2


def _table(file: Path, source: str) -> QuestionFile:
    header, sheet = read_sheet(file, lambda names: not needs_of(names), source)
    columns = [column_name(name) for name in header]
    for name, column in zip(columns, header, strict=True):
        base = re.sub(r"\.\d+$", "", name)
        if base != name and base in columns and any(base in names for names in COLUMNS.values()):
            raise ValueError(f"{source}: the column {column!r} is {base!r} once more; rename or delete one of them.")
    rows, filled = [], [row for row in sheet if "".join(row.cells).strip()]  # Excel keeps rows that were emptied
    for row in filled:
        where = f"{source}, {place(row.number, row.line)}"
        for at, (name, cell) in enumerate(zip(columns, row.cells, strict=True)):
            if not name and cell.strip() and not (at == 0 and cell.strip().isdecimal()):  # pandas' index has no name
                raise ValueError(f"{where}: the cell {cell.strip()!r} stands in column {at + 1}, which has no name.")
        rows.append({name: cell for name, cell in zip(columns, row.cells, strict=True) if name})
    places = [place(row.number, row.line) for row in filled]
    return QuestionFile(source=source, value=rows, places=places, header=header)


def _named(item: Any, source: str, where: str) -> Any:
    """Return an object with its keys as `column_name` gives them."""
    if not isinstance(item, dict):
        return item
    named = {column_name(key): value for key, value in item.items()}
    if len(named) != len(item):
        raise ValueError(f"{source}, {where}: two of its keys differ in case or spaces alone.")
    return named
