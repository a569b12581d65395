"""Reads a results document into small typed objects; says in one sentence what is wrong with a bad one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salience.core.record import read, validate
from salience.lab.report.kit.words import finite


def is_time(column: str) -> bool:
    """Whether a column is in milliseconds."""
    return column.endswith("_ms") or "_ms_" in column


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured line of a trade-off: a method at a ratio with a seed; `values` holds every column, as written."""

    method: str
    keep: float
    seed: int | None
    values: Mapping[str, Any]

    def number(self, column: str) -> float | None:
        """The column as a finite float; None when it was not measured, or is a negative time, which is none."""
        value = finite(self.values.get(column))
        return None if value is not None and value < 0 and is_time(column) else value


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What one method kept of a picture (`kept`: indices in raster order) and what was answered from it."""

    method: str
    keep: float
    kept: tuple[int, ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture, its question, the true answer, the unpruned one, and the cuts. boxes: (x0, y0, x1, y1) in pixels."""

    image: Path | None
    question: str
    answer: str
    full_answer: str | None
    kind: str
    boxes: tuple[tuple[float, float, float, float], ...]
    grid: tuple[int, int]
    cuts: tuple[Cut, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Any record: its kind, configuration and rows as they stand, and, for a trade-off, typed rows and examples."""

    kind: str
    config: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    typed: tuple[Row, ...] = ()
    examples: tuple[Example, ...] = ()
    #: the record's further tables, as they stand
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole document; `folder` is what picture paths are relative to."""

    environment: Mapping[str, Any]
    records: tuple[Record, ...]
    folder: Path = field(default_factory=Path)

    def of_kind(self, kind: str) -> tuple[Record, ...]:
        """The records of one kind, in order."""
        return tuple(record for record in self.records if record.kind == kind)


def load_results(source: Mapping[str, Any] | str | Path, folder: Path) -> Results:
    """Reads a document or a results.json.

    Args:    source: the document, or the path of one    folder: where a document's pictures are; a path has its own
    Returns: Results
    Raises:  ValueError when it can't be read, is of another schema, or has no records
    """
    if isinstance(source, Mapping):
        validate(source)
    else:
        folder, source = Path(source).parent, _read(Path(source))
    records = source["records"]
    if not records:
        raise ValueError("results: there are no records in it, at least one is needed")
    return Results(
        environment=_mapping(source.get("environment")),
        records=tuple(_record(record, number, folder) for number, record in enumerate(records)),
        folder=folder,
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"results: {path} can't be read ({error})") from error


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _record(raw: Mapping[str, Any], number: int, folder: Path) -> Record:
    rows = tuple(_mapping(row) for row in raw.get("rows") or ())
    if raw["kind"] != "tradeoff":
        return Record(kind=raw["kind"], config=_mapping(raw.get("config")), rows=rows, extra=raw)
    if not rows:
        raise ValueError(f"results: record {number} (tradeoff) has no rows, at least one is needed")
    return Record(
        kind="tradeoff",
        config=_mapping(raw.get("config")),
        rows=rows,
        typed=tuple(_row(row, f"record {number}, row {index}") for index, row in enumerate(rows)),
        examples=tuple(_example(_mapping(example), folder) for example in raw.get("examples") or ()),
        extra=raw,
    )


def _row(raw: Mapping[str, Any], where: str) -> Row:
    method, keep, seed = raw.get("method"), finite(raw.get("keep")), finite(raw.get("seed"))
    if not isinstance(method, str) or not method:
        raise ValueError(f"results: {where} has method {method!r}, a name is needed")
    if keep is None or not 0 < keep <= 1:
        raise ValueError(f"results: {where} has keep {raw.get('keep')!r}, a number in (0, 1] is needed")
    return Row(method=method, keep=keep, seed=None if seed is None else int(seed), values=raw)


def _example(raw: Mapping[str, Any], folder: Path) -> Example:
    rows, columns = raw.get("grid") or (24, 24)
    cuts = [
        Cut(
            method=str(cut["method"]),
            keep=float(cut["keep"]),
            kept=tuple(int(token) for token in cut["kept"]),
            answer=str(cut["answer"]),
        )
        for cut in raw.get("cuts") or ()
    ]
    return Example(
        image=folder / str(raw["image"]) if raw.get("image") else None,
        question=str(raw.get("question", "")),
        answer=str(raw.get("answer", "")),
        full_answer=None if raw.get("full_answer") is None else str(raw["full_answer"]),
        kind=str(raw.get("kind", "")),
        boxes=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in raw.get("boxes") or ()),
        grid=(int(rows), int(columns)),
        cuts=tuple(cuts),
    )
