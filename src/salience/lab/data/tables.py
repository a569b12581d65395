"""Tables and JSON that users hand over, read strictly: what is there is read as it is written, the rest is refused.

CSV is read by pandas' Python engine, and not by polars: it gives every cell as text, and it tells a cell that is empty
from one that is missing, which polars fills alike; only so is a row seen whose columns have shifted. It is there
anyway wherever the extra `study` is. JSON is read by the standard library, for both guess types: "07" would be 7.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_BOMS = {  # the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
#: How programs write that a value is missing, besides an empty cell; some of them are words, too.
MISSING = frozenset({
    "nan", "NaN", "-nan", "-NaN", "<NA>", "NA", "N/A", "n/a", "null", "NULL", "None", "1.#QNAN", "1.#IND",
})  # fmt: skip
#: What a spreadsheet writes where a formula failed; no word in any language.
_FAILED = frozenset({
    "#N/A", "#N/A N/A", "#NA", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!", "#CALC!",
})  # fmt: skip
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad]")
_BINARY = {  # what a file is whose name says that it is text
    b"PK\x03\x04": "a spreadsheet or another ZIP archive", b"\xd0\xcf\x11\xe0": "an old Excel spreadsheet",
    b"\x1f\x8b": "compressed with gzip", b"PAR1": "in the Parquet format", b"%PDF": "a PDF",
}  # fmt: skip
_LITTER = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "#recycle")  # folders that systems make, with copies of files in them


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """cells: as many as the header has   number: of the row below the header, from 1   line: where it begins"""

    cells: tuple[str, ...]
    number: int
    line: int


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """header: the columns' names, outer spaces aside; each but the empty one is there once   rows: blank lines aside"""

    header: tuple[str, ...]
    rows: tuple[SheetRow, ...]


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


def is_litter(path: Path) -> bool:
    """Whether a path, relative to the user's folder, is what systems leave there: hidden, or a copy of a file."""
    return any(part.startswith((".", "~$")) or part in _LITTER for part in path.parts)


def how_to_save(file: Path) -> str:
    """Advice for a spreadsheet or a table in a binary format, a clause; empty for all other files."""
    if file.suffix.lower() in (".parquet", ".arrow", ".feather", ".pkl"):
        return "write it with pandas as JSONL: to_json('table.jsonl', orient='records', lines=True)"
    return "save it as 'CSV UTF-8'" if file.suffix.lower() in (".xlsx", ".xls", ".ods", ".numbers") else ""


def column_name(text: str) -> str:
    """A column's name whatever its case, spaces and dashes: "Image Path " is image_path."""
    return re.sub(r"[\s_-]+", "_", as_seen(text).casefold())


def as_seen(text: str) -> str:
    """A text without what nobody sees: how its accents are written, kinds of spaces, letters of no width."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", text)).split())


def failed_formula(cell: str) -> bool:
    """Whether this is what a spreadsheet writes where a formula failed, such as #N/A or #REF!."""
    return cell.strip().upper() in _FAILED


def place(number: int, line: int) -> str:
    """The words for a row: its number, and its line in the file where that is another one."""
    return f"row {number}" if number == line else f"row {number}, line {line}"


def read_text(file: Path, name: str = "") -> str:
    """A file's text in UTF-8, or in UTF-16 or UTF-32 where it begins with their mark; line ends are kept.

    Raises:  ValueError, one sentence with the line, when it is neither
    """
    name, raw = name or file.name, file.read_bytes()
    if (binary := next((what for mark, what in _BINARY.items() if raw.startswith(mark)), None)) is not None:
        raise ValueError(f"{name} is no text but {binary}; save the table itself as text in UTF-8.")
    coding = next((coding for mark, coding in _BOMS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(coding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1 if coding.startswith("utf-8") else 1
        raise ValueError(
            f"{name}, line {line}: the byte 0x{raw[error.start]:02x} is not {coding.removesuffix('-sig').upper()}"
            " text (Latin-1 or Windows-1252, perhaps); save the file in UTF-8, which Excel calls 'CSV UTF-8'."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{name}, line {line}: it holds a NUL character; save the file as text in UTF-8.")
    return re.sub("(?m)^\ufeff+", "", text)  # the mark once more, where files were put one behind the other


def header_of(text: str, fits: Callable[[Sequence[str]], bool]) -> tuple[str, list[str]]:
    """The separator and the columns' names of a table: those that fit, else those where a comma or the like parts most.

    fits: whether a header, its names as `column_name` gives them, is the one that is looked for
    """
    line = _body(text)[0]
    found = {sign: _first_record(line, sign) for sign in _signs(text)}
    for sign, names in found.items():
        if fits([column_name(name) for name in names]):
            return sign, names
    return max(found.items(), key=lambda each: len(each[1]))


def read_sheet(file: Path, fits: Callable[[Sequence[str]], bool], name: str = "") -> Sheet:
    """The cells of a CSV file, as text and exactly as written, separated by what makes its header fit.

    name: what sentences call the file

    Raises:  ValueError, one sentence with the row, for another encoding, a row with more or fewer cells than the
             header, a quote that is not closed or not doubled, a column that is there twice
    """
    name = name or file.name
    text = read_text(file, name)
    sign, header = header_of(text, fits)
    body, skipped = _body(text)
    _require_header_first(body, sign, header, skipped, fits, name)
    _require_columns(header, name)
    lines = body.split("\n")
    records, line = _records(body, sign, len(header), name, skipped), skipped + 1
    rows: list[SheetRow] = []
    for cells in records:
        filled = [cell for cell in cells if cell is not None]
        if "".join(filled).strip() or len(filled) > 1:
            number, where = len(rows), place(len(rows), line)  # the header is row 0
            if len(filled) != len(header):
                raise ValueError(f"{name}, {where}: {_ragged(len(filled), len(header), sign)}")
            _require_one_row(lines, line - skipped - 1, filled, sign, f"{name}, {where}")
            rows.append(SheetRow(cells=tuple(filled), number=number, line=line))
        line += 1 + sum(len(re.findall(r"\r\n|\n|\r", cell)) for cell in filled)
    return Sheet(header=tuple(header), rows=tuple(rows[1:]))


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


def _body(text: str) -> tuple[str, int]:
    """The text without Excel's line `sep=;` and blank lines before the header, and how many lines were left out."""
    if "\n" not in text and "\r" in text:
        text = text.replace("\r", "\n")  # as Excel's "CSV (Macintosh)" ends its lines
    skipped = 0
    while text:
        first, _, rest = text.partition("\n")
        if first.strip() and not re.fullmatch(r"\s*\"?sep=.\"?\s*", first):
            break
        text, skipped = rest, skipped + 1
    return text, skipped


def _signs(text: str) -> list[str]:
    """The separators that may be meant: the one that the file's first line names, else all."""
    told = re.match(r"\s*\"?sep=([,;\t|])\"?[^\S\n]*\r?\n", text)
    return [told[1]] if told else list(DELIMITERS)


def _first_record(body: str, sign: str) -> list[str]:
    import csv

    try:  # of the header alone, to find the separator; pandas reads the table
        return [
            cell.strip()
            for cell in next(csv.reader(io.StringIO(body, newline=""), delimiter=sign, skipinitialspace=True), [])
        ]
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


def _require_header_first(
    body: str, sign: str, header: Sequence[str], skipped: int, fits: Callable[[Sequence[str]], bool], name: str
) -> None:
    """Refuse a title or a remark above the columns' names: it would be read as the header."""
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
    """Refuse two rows that stray quotes made one: the second quote closes what the first has opened rows above.

    A cell of several lines is what quotes are for; it is suspicious where each of its lines is a row by itself.
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


def _records(body: str, sign: str, width: int, name: str, skipped: int) -> Iterator[Sequence[Any]]:
    """Each record's cells, None behind its last one."""
    import pandas as pd
    from pandas.errors import EmptyDataError, ParserError

    # rows that are too long must be seen as such, so there is room for more cells than the header has
    longest = max(width, max((line.count(sign) for line in body.split("\n")), default=0) + 1)
    read = partial(
        pd.read_csv, engine="python", sep=sign, header=None, names=range(longest), index_col=False, dtype=object,
        keep_default_na=False, na_filter=False, skip_blank_lines=False, skipinitialspace=True,
    )  # fmt: skip
    try:
        frame = read(io.StringIO(body, newline=""))
    except EmptyDataError:
        return
    except ParserError as error:
        raise ValueError(f"{name}, {_refused(body, read, skipped)}: {_reason(str(error))}") from None
    yield from frame.itertuples(index=False, name=None)


def _refused(body: str, read: Callable[..., Any], skipped: int) -> str:
    """The place of the first record below the header that can't be read; those before it are found by bisection."""
    import csv

    from pandas.errors import ParserError

    good, bad = 1, body.count("\n") + 2
    while bad - good > 1:
        tried = (good + bad) // 2
        try:
            read(io.StringIO(body, newline=""), nrows=tried)
            good = tried
        except (ParserError, csv.Error):  # pandas leaves the latter as it is where it reads some rows only
            bad = tried
    # pandas always looks two records ahead, so that the header alone can't be read where the next record is bad
    whole = read(io.StringIO(body, newline=""), nrows=good).itertuples(index=False, name=None) if good > 1 else ()
    cells = [cell for record in whole for cell in record if cell is not None]
    return place(good, skipped + 1 + good + sum(len(re.findall(r"\r\n|\n|\r", cell)) for cell in cells))


def _reason(said: str) -> str:
    if "unexpected end of data" in said or "EOF" in said:
        return "a cell begins with a double quote that is never closed."
    if "expected after" in said:
        return "text stands behind a closing double quote; a quote inside a quoted cell must be doubled."
    if "field limit" in said:
        return "a cell is longer than 131,072 characters; is a double quote not closed?"
    return f"it can't be read ({said.strip().partition(chr(10))[0].rstrip('.')})."
