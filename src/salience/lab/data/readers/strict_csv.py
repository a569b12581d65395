"""CSV files, read strictly: every cell is text, exactly as written, and every row has as many cells as the header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salience.lab.data.readers.text_files import column_name, place, read_text

if TYPE_CHECKING:
    from _csv import Reader

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One row. cells: as many as the header has   number: below the header, from 1   line: of the file, from 1"""

    cells: tuple[str, ...]
    number: int
    line: int


#: Whether a header, with its names as `column_name` gives them, is the expected one.
Fits = Callable[[Sequence[str]], bool]


def read_sheet(file: Path, fits: Fits, name: str = "") -> tuple[tuple[str, ...], list[SheetRow]]:
    """Return the names of a CSV file's columns, stripped, and its rows without blank lines. No name but "" repeats.

    The separator is the one that makes the header fit, else the one that splits it most. name: of the file in messages

    Raises:  ValueError, one sentence with the row, for another encoding, a row with more or fewer cells than the
             header, a quote that is not closed or not doubled, a column that is there twice
    """
    name = name or file.name
    text = read_text(file, name)
    body, skipped = _body(text)
    sign, header = _separator(text, body, fits)
    _require_header_first(body, sign, header, skipped, fits, name)
    _require_columns(header, name)
    lines = body.split("\n")
    rows: list[SheetRow] = []
    reader, line = _reader(body, sign, strict=True), skipped + 1
    try:
        for cells in reader:
            if "".join(cells).strip() or len(cells) > 1:
                number, where = len(rows), f"{name}, {place(len(rows), line)}"  # the header is row 0
                if len(cells) != len(header):
                    raise ValueError(f"{where}: {_ragged(len(cells), len(header), sign)}")
                _require_one_row(lines, line - skipped - 1, cells, sign, where)
                rows.append(SheetRow(cells=tuple(cells), number=number, line=line))
            line = skipped + 1 + reader.line_num
    except csv.Error as error:
        raise ValueError(f"{name}, {place(max(1, len(rows)), line)}: {_reason(str(error))}") from None
    return tuple(header), rows[1:]


def _reader(body: str, sign: str, *, strict: bool = False) -> Reader:
    return csv.reader(io.StringIO(body, newline=""), delimiter=sign, skipinitialspace=True, strict=strict)


def _separator(text: str, body: str, fits: Fits) -> tuple[str, list[str]]:
    """Return the separator, which Excel's first line may name, and the header that it gives."""
    named = re.match(r"\s*\"?sep=([,;\t|])\"?[^\S\n]*\r?\n", text)
    found = {sign: _first_record(body, sign) for sign in ([named[1]] if named else DELIMITERS)}
    for sign, names in found.items():
        if fits([column_name(name) for name in names]):
            return sign, names
    return max(found.items(), key=lambda each: len(each[1]))


def _body(text: str) -> tuple[str, int]:
    """Return the text from the header on, and how many lines were removed: Excel's `sep=;` and blank lines."""
    if "\n" not in text and "\r" in text:
        text = text.replace("\r", "\n")  # as Excel's "CSV (Macintosh)" ends its lines
    skipped = 0
    while text:
        first, _, rest = text.partition("\n")
        if first.strip() and not re.fullmatch(r"\s*\"?sep=.\"?\s*", first):
            break
        text, skipped = rest, skipped + 1
    return text, skipped


def _first_record(body: str, sign: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(_reader(body, sign), [])]
    except csv.Error:
        return []


def _require_columns(header: Sequence[str], name: str) -> None:
    if not any(header):
        raise ValueError(f"{name} is empty, but its first line must name the columns.")
    known: dict[str, str] = {}
    for column in filter(None, header):
        if (key := column_name(column)) in known:
            raise ValueError(
                f"{name}: the columns {known[key]!r} and {column!r} are one; rename or delete one of them."
            )
        known[key] = column


def _require_header_first(body: str, sign: str, header: Sequence[str], skipped: int, fits: Fits, name: str) -> None:
    """Refuse a title or a remark above the header, which would be read as the header."""
    if fits([column_name(column) for column in header]):
        return
    rest = body
    for line in range(skipped + 2, skipped + 12):
        rest = rest.partition("\n")[2]
        if rest and any(
            fits([column_name(part) for part in _first_record(rest, each)]) for each in {sign, *DELIMITERS}
        ):
            raise ValueError(f"{name}: the columns' names are in line {line}, but must be first; delete what is above.")


def _require_one_row(lines: Sequence[str], begins: int, cells: Sequence[str], sign: str, where: str) -> None:
    """Refuse rows that stray quotes joined: one quote opens a cell, another one rows below closes it.

    A quoted cell may have several lines. It is suspicious where each of its lines is a whole row by itself.
    """
    breaks = sum(cell.count("\n") for cell in cells)
    if breaks and all(line.count(sign) == len(cells) - 1 > 0 for line in lines[begins : begins + breaks + 1]):
        raise ValueError(
            f"{where}: double quotes make one row of {breaks + 1} lines, each with {len(cells)} cells of its own; "
            "is a quote left over? A cell that is meant to have several lines must be put into one."
        )


def _ragged(cells: int, columns: int, sign: str) -> str:
    said = f"{cells} cell{'' if cells == 1 else 's'}, but the header has {columns}"
    if cells > columns:
        return f"{said}; a cell with {DELIMITERS[sign]} in it must stand in double quotes."
    return f"{said}; an empty cell needs its {DELIMITERS[sign].removeprefix('a ')}, too."


def _reason(said: str) -> str:
    if "unexpected end of data" in said or "EOF" in said:
        return "a cell begins with a double quote that is never closed."
    if "expected after" in said:
        return "text stands behind a closing double quote; a quote inside a quoted cell must be doubled."
    if "field limit" in said:
        return "a cell is longer than 131,072 characters; is a double quote not closed?"
    return f"it can't be read ({said.strip().partition(chr(10))[0].rstrip('.')})."
