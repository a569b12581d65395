"""The results document that studies write and reports read: `results.json`.

`{"schema": 1, "environment": {...}, "records": [{"kind", "config": {...}, "rows": [{...}], ...}]}`. Records are the
classes below; their rows are in `result_rows` and their further tables in `result_tables`. The writer and the reader
use the same classes, so a column is named and checked in one place.

The schema number stays at 1 as long as every file that was written under it can be read: the classes type the shape
that the files have had from the start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from salience.core.environment import environment
from salience.core.files import read_json, write_atomic
from salience.core.result_object import ResultObject
from salience.core.result_rows import CompareRow, ProfileRow, TradeoffRow
from salience.core.result_tables import (
    AccuracyDifference,
    DivergedRun,
    Example,
    KindDifference,
    LengthAccuracy,
    LengthCost,
    ModelDifference,
    ModelResult,
    ShuffledControl,
)

SCHEMA = 1

#: A document as a JSON object.
Document = dict[str, Any]

#: kind of record -> keys that every config has
CONFIG_KEYS: dict[str, tuple[str, ...]] = {
    "tradeoff": ("model", "task", "n_questions", "question_only_accuracy", "majority_accuracy", "n_visual_tokens"),
    "profile": (),
    "compare": ("task", "length", "majority_accuracy", "chance_accuracy"),
}


@dataclass(frozen=True, kw_only=True)
class ResultRecord(ResultObject):
    """Base of the three kinds of record. config: settings and facts of the run; some keys are in `CONFIG_KEYS`."""

    KIND: ClassVar[str]

    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: object, where: str) -> Self:
        """See `ResultObject.from_json`."""
        made = super().from_json(found, where)
        missing = [key for key in CONFIG_KEYS[cls.KIND] if key not in made.config]
        if missing:
            raise ValueError(f"{where}.config lacks {', '.join(missing)}; what was not measured is written as null")
        return made

    def to_json(self) -> dict[str, Any]:
        """The record as JSON holds it, its kind first."""
        return {"kind": self.KIND, **super().to_json()}


@dataclass(frozen=True, kw_only=True)
class TradeoffRecord(ResultRecord):
    """Pruning methods at keep ratios on one vision-language model.

    A writer gives the rows of every method, ratio and seed, and the tables that the study measured::

        TradeoffRecord(config={"model": name, "task": "scenes", ...}, rows=tuple(rows), differences=tuple(apart))
    """

    KIND: ClassVar[str] = "tradeoff"

    rows: tuple[TradeoffRow, ...] = ()
    differences: tuple[AccuracyDifference, ...] = ()  # between methods, and from all tokens
    blind_differences: tuple[AccuracyDifference, ...] = ()  # all tokens against answers without the picture
    kind_differences: tuple[KindDifference, ...] = ()  # each method against all tokens, by kind of question
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CompareRecord(ResultRecord):
    """Sequence models under identical training. A writer gives one row for each epoch, model and seed."""

    KIND: ClassVar[str] = "compare"

    rows: tuple[CompareRow, ...] = ()
    final: tuple[ModelResult, ...] = ()
    tests: tuple[ModelDifference, ...] = ()
    longer: tuple[LengthAccuracy, ...] = ()
    control: tuple[ShuffledControl, ...] = ()
    throughput: tuple[LengthCost, ...] = ()
    diverged: tuple[DivergedRun, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProfileRecord(ResultRecord):
    """Counted and measured cost of one model. A writer gives one row for each keep ratio."""

    KIND: ClassVar[str] = "profile"

    rows: tuple[ProfileRow, ...] = ()


_KINDS: dict[object, type[ResultRecord]] = {kind.KIND: kind for kind in (CompareRecord, ProfileRecord, TradeoffRecord)}
_R = TypeVar("_R", bound=ResultRecord)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A document that was read. folder: paths of sample pictures start here"""

    environment: Mapping[str, Any]
    records: tuple[ResultRecord, ...]
    folder: Path = field(default_factory=Path)

    def of_kind(self, kind: type[_R]) -> tuple[_R, ...]:
        """Return the records of one class, in order."""
        return tuple(record for record in self.records if isinstance(record, kind))


def document(
    records: Sequence[ResultRecord], device: str = "cpu", *, machine: Mapping[str, Any] | None = None
) -> Document:
    """Return the validated results document. machine: `lab.profile.machine_load.Machine.observed()`"""
    written = [record.to_json() for record in records]
    measured_on = {**environment(device), **(machine or {})}
    if any(record.config.get("quick") for record in records):
        measured_on["quick"] = True  # the document as a whole is not to be quoted
    found = {"schema": SCHEMA, "environment": measured_on, "records": written}
    validate(found)
    return found


def parse(found: Mapping[str, Any], folder: Path = Path()) -> Results:
    """Return the typed records of a document. folder: paths of sample pictures start here

    Raises:  ValueError, one sentence with the place in the document, for another schema, a missing or unknown key or
             column, a value of a wrong type, NaN or infinity
    """
    if found.get("schema") != SCHEMA:
        raise ValueError(f"schema is {found.get('schema')!r}, but this version reads schema {SCHEMA}")
    top = _Top.from_json({name: found[name] for name in ("environment", "records") if name in found}, "results")
    records = tuple(_record(record, f"records[{number}]") for number, record in enumerate(top.records))
    return Results(environment=top.environment, records=records, folder=folder)


@dataclass(frozen=True, kw_only=True)
class _Top(ResultObject):
    environment: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]


def _record(found: Mapping[str, Any], where: str) -> ResultRecord:
    kind = found.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"{where}.kind is {kind!r}, but must be one of {', '.join(sorted(map(str, _KINDS)))}")
    return _KINDS[kind].from_json({name: value for name, value in found.items() if name != "kind"}, where)


def load_results(source: Mapping[str, Any] | str | Path, folder: Path = Path()) -> Results:
    """Return the typed records of a document or of a results.json.

    Args:    source: the document, or the path of one   folder: of a document's sample pictures; a path has its own
    Raises:  ValueError where it can't be read, holds no records or a trade-off without rows, and as `parse` does
    """
    if not isinstance(source, Mapping):
        try:
            folder, source = Path(source).parent, _object(source)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"results: {source} can't be read ({error})") from error
    found = parse(source, folder)
    if not found.records:
        raise ValueError("results: there are no records in it, at least one is needed")
    for number, record in enumerate(found.records):
        if isinstance(record, TradeoffRecord) and not record.rows:
            raise ValueError(f"records[{number}] (tradeoff) has no rows, at least one is needed")
    return found


def validate(found: Mapping[str, Any]) -> None:
    """Raise ValueError as `parse` does."""
    parse(found)


def write(path: str | os.PathLike[str], found: Document) -> Path:
    """Validate the document and write it as JSON, aside first and then renamed. Returns the path."""
    validate(found)
    return write_atomic(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


def read(path: str | os.PathLike[str]) -> Document:
    """Read and validate a results document. Raises ValueError when it is not one."""
    found = _object(path)
    validate(found)
    return found


def _object(path: str | os.PathLike[str]) -> Document:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, but a results document is an object")
    return found
