"""Reading and writing of the dataclasses that a results document holds as JSON objects.

A field's name is the key in the file and its annotation says what the file may hold there, so that the writer and the
reader share one definition.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

_WORDS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list", Mapping: "an object",
}  # fmt: skip


class ResultObject:
    """Base of the frozen, keyword-only dataclasses of a results document.

    Writers construct them with keywords and leave out what was not measured, which is then None. Allowed annotations:
    str, int, float, bool, `Mapping[str, Any]`, other result objects, tuples of these, and each `| None`.
    """

    #: Keys that every file has, if only as null, besides the fields without a default.
    REQUIRED: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_json(cls, found: object, where: str) -> Self:
        """Read one object of a document.

        Args:    found: the parsed JSON   where: its place in the document for messages, such as "records[0].rows[3]"
        Raises:  ValueError, one sentence with the place and the key, for a key that is missing or unknown and for a
                 value that is of another type, not finite, or out of range
        """
        if not isinstance(found, Mapping):
            raise ValueError(f"{where} is {_shown(found)}, but must be {_WORDS[Mapping]}")
        known, required = _fields(cls)  # type: ignore[arg-type]  # a class is hashable
        missing = [name for name in required if name not in found]
        if missing:
            raise ValueError(f"{where} lacks {', '.join(missing)}; what was not measured is written as null")
        unknown = [str(name) for name in found if name not in known]
        if unknown:
            raise ValueError(f"{where} has {', '.join(unknown)}, which this version does not know")
        values = {name: _checked(known[name], value, f"{where}.{name}") for name, value in found.items()}
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The object as JSON holds it: every field in its order, null for what was not measured."""
        return {name: _plain(getattr(self, name)) for name in _fields(type(self))[0]}  # type: ignore[arg-type]


@functools.cache
def _fields(cls: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Field -> annotation, and the keys that must be there."""
    hints = get_type_hints(cls)
    named = fields(cls)
    without = [field.name for field in named if field.default is MISSING and field.default_factory is MISSING]
    return {field.name: hints[field.name] for field in named}, tuple(dict.fromkeys((*without, *cls.REQUIRED)))


def _checked(kind: Any, value: object, where: str) -> Any:
    """The value as the annotation has it. Raises ValueError with its place."""
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    wanted, outer = kinds[0], get_origin(kinds[0]) or kinds[0]
    if value is None and (wanted is Any or types.NoneType in kinds):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, but numbers must be finite; what was not measured is written as null")
    if wanted is Any:
        return _any(value, where)
    if outer is tuple and isinstance(value, list | tuple):
        return _tuple(get_args(wanted), value, where)
    if outer is Mapping and isinstance(value, Mapping):
        return {str(name): _checked(get_args(wanted)[1], inner, f"{where}.{name}") for name, inner in value.items()}
    if issubclass(outer, ResultObject):
        return outer.from_json(value, where)
    allowed = (int, float) if outer is float else outer
    if not isinstance(value, allowed) or (isinstance(value, bool) and outer is not bool):
        raise ValueError(f"{where} is {_shown(value)}, but must be {_WORDS[outer]}")
    return value


def _any(value: object, where: str) -> object:
    """The value, whose numbers must be finite."""
    if isinstance(value, Mapping):
        return _checked(Mapping[str, Any], value, where)
    return list(_tuple((Any, ...), value, where)) if isinstance(value, list | tuple) else value


def _tuple(kinds: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> tuple[Any, ...]:
    each = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    if len(each) != len(value):
        raise ValueError(f"{where} has {len(value)} items, but must have {len(each)}")
    return tuple(
        _checked(kind, item, f"{where}[{at}]") for at, (kind, item) in enumerate(zip(each, value, strict=True))
    )


def _plain(value: Any) -> Any:
    if isinstance(value, ResultObject):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
