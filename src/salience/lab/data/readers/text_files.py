"""Text files of users: encoding, names of columns, and the place of a row in messages. Unclear content is refused."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path

_BOMS = {  # longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
#: How programs write a missing value, besides an empty cell. Some of these are words, too.
MISSING = frozenset("nan NaN -nan -NaN <NA> NA N/A n/a null NULL None 1.#QNAN 1.#IND".split())
#: What a spreadsheet writes where a formula failed; a word in no language.
_FAILED = frozenset("#N/A #NA #REF! #VALUE! #DIV/0! #NAME? #NULL! #NUM! #SPILL! #CALC!".split()) | {"#N/A N/A"}
#: A number as text.
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad]")
_BINARY = {  # first bytes of binary files that are named like text
    b"PK\x03\x04": "a spreadsheet or another ZIP archive", b"\xd0\xcf\x11\xe0": "an old Excel spreadsheet",
    b"\x1f\x8b": "compressed with gzip", b"PAR1": "in the Parquet format", b"%PDF": "a PDF",
}  # fmt: skip
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "#recycle")  # made by systems, with copies of files


def is_litter(path: Path) -> bool:
    """Whether a path, relative to the user's folder, is hidden or a copy that a system made."""
    return any(part.startswith((".", "~$")) or part in _SYSTEM_FOLDERS for part in path.parts)


def how_to_save(file: Path) -> str:
    """Return advice (a clause) for a spreadsheet or a binary table; empty for all other files."""
    if file.suffix.lower() in (".parquet", ".arrow", ".feather", ".pkl"):
        return "write it with pandas as JSONL: to_json('table.jsonl', orient='records', lines=True)"
    return "save it as 'CSV UTF-8'" if file.suffix.lower() in (".xlsx", ".xls", ".ods", ".numbers") else ""


def column_name(text: str) -> str:
    """Return a column's name without case, spaces and dashes: "Image Path " becomes image_path."""
    return re.sub(r"[\s_-]+", "_", as_seen(text).casefold())


def as_seen(text: str) -> str:
    """Return the text in one Unicode form, without invisible characters, each run of spaces as one space."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", text)).split())


def failed_formula(cell: str) -> bool:
    """Whether a cell is a spreadsheet's mark of a failed formula, such as #N/A or #REF!."""
    return cell.strip().upper() in _FAILED


def place(number: int, line: int) -> str:
    """Return "row 3", or "row 3, line 4" where the line in the file is another number. line: 0 for none"""
    return f"row {number}" if line in (0, number) else f"row {number}, line {line}"


def read_text(file: Path, name: str = "") -> str:
    """Return a file's text: UTF-8, or UTF-16 or UTF-32 with a byte order mark. Line ends are kept.

    name: of the file in messages

    Raises:  ValueError, one sentence with the line, for another encoding and for binary files
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
    return re.sub("(?m)^\ufeff+", "", text)  # marks inside, where files were joined one behind the other
