"""Fields with several answers or choices: a list, or a text that contains a list."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from salience.lab.data.readers.strict_json import Written
from salience.lab.data.readers.text_files import NUMBER
from salience.lab.data.vqa.sample import plain_text

_STRING = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
_LITERAL = f"{_STRING}|{NUMBER.pattern}|None|[nN]a[nN]|<NA>|True|False"
_ITEM = re.compile(rf"(?:(?:np|numpy)\.\w+\(\s*)?({_LITERAL})(?:\s*\))?")
_ITEMS = re.compile(rf"(?:(?>(?:(?:np|numpy)\.\w+\(\s*)?(?:{_LITERAL})(?:\s*\))?)(?>\s*,\s*|\s+|$))*+")
_LIST = re.compile(
    r"(?:array\(\s*)?\[(?P<list>.*)\](?:\s*,\s*dtype=[\w<>'.]+)?\s*\)?|\((?P<tuple>\s*['\"].*)\)|\{(?P<set>\s*['\"].*)\}",
    re.DOTALL,
)


def several(value: Any, name: str, where: str) -> tuple[str, ...]:
    """Return the texts of a field: a list, a list written by JSON, pandas or numpy, or text with | between.

    Only single literals are evaluated. numpy writes no commas between strings, which Python would join.

    Returns: () for a missing value
    Raises:  ValueError that names the row, for a list that can't be read and an item that is no text or number
    """
    if value is None:
        return ()
    if isinstance(value, str):
        text = value.strip()
        if not _LIST.fullmatch(text) and not re.match(r"[\[({]\s*['\"]", text):
            return tuple(part.strip() for part in text.split("|") if part.strip())
        value = _read(text)
        if value is None:
            raise ValueError(f'{where}: its {name} {text!r} can\'t be read as a list; write ["one", "other"].')
    if not isinstance(value, list):
        return (plain_text(value, name, where),)
    return tuple(plain_text(each.get("answer") if isinstance(each, dict) else each, name, where) for each in value)


def answers_in(value: Any, where: str) -> tuple[str, ...]:
    """Return the answers in a field for one answer: its text, or the texts of a list.

    Raises:  ValueError that names the row where one answer or several may be meant
    """
    if isinstance(value, list):
        return several(value, "answer", where)
    text = plain_text(value, "answer", where)
    found = _read(text) if isinstance(value, str) and _LIST.fullmatch(text) else None
    if found and all(isinstance(each, str) for each in found):
        return several(found, "answer", where)
    if found is not None or re.fullmatch(r"[\[({]\s*['\"].*|\[.*,.*\]", text, re.DOTALL):
        raise ValueError(f"{where}: its answer {text!r} looks like a list; put several into a column 'answers'.")
    return (text,)


def _read(text: str) -> list[Any] | None:
    """Return the items of a list as JSON, Python or numpy writes it; None for other text."""
    try:
        read = json.loads(text, parse_float=Written)
    except (ValueError, RecursionError):
        found = _LIST.fullmatch(text)
        return None if found is None else _items(next(part for part in found.groups() if part is not None).strip())
    return read if isinstance(read, list) else None


def _items(text: str) -> list[Any] | None:
    """Return the items between the brackets of a Python or numpy list; None for anything but literals."""
    return [_literal(item[1]) for item in _ITEM.finditer(text)] if _ITEMS.fullmatch(text) else None


def _literal(token: str) -> Any:
    if token[0] in "'\"":
        return ast.literal_eval(token.replace("\n", "\\n"))
    if token in ("None", "<NA>"):
        return None
    if token.lower() == "nan":
        return float("nan")
    if token in ("True", "False"):
        return token == "True"
    return Written(token)
