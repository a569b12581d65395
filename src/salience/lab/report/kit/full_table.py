"""Full tables: columns with their definitions, and the rows of a record as text, as sort keys and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from salience.core.result_rows import ResultRow
from salience.lab.report.kit.words import DASH, MINUS, share

Value = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the full table. Values are divided by `unit` and written with `digits` decimals."""

    name: str
    short: str
    meaning: str
    digits: int = 2
    unit: float = 1.0

    def written(self, value: Value) -> str:
        """The text of a value; a dash for what was not measured."""
        if value is None or isinstance(value, str):
            return DASH if value is None else value
        return share(value) if self.name == "keep" else f"{value / self.unit:,.{self.digits}f}".replace("-", MINUS)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns, rows of (text, value to sort by), and the rows as CSV, as written in the results."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]
    csv: str


def describe(name: str, known: Mapping[str, Column]) -> Column:
    """Return the column of a name. Kinds of question describe themselves; other columns have their name alone."""
    if name in known or not name.startswith("accuracy_"):
        return known.get(name) or Column(name=name, short=name.replace("_", " "), meaning="", digits=3)
    kind = name.removeprefix("accuracy_").replace("_", "-")
    return Column(name=name, short=kind, meaning=f"Accuracy on {kind} questions alone.", digits=3)


def table(rows: Sequence[ResultRow], definitions: Sequence[Column]) -> Table:
    """Return every row with the columns that are required or were measured, those of `definitions` first.

    Kinds of question stand behind the accuracy's interval.
    """
    written: list[dict[str, Value]] = [row.to_json() for row in rows]
    every = dict.fromkeys(name for row in written for name in row)
    present = [name for name in every if name in rows[0].REQUIRED or any(row.get(name) is not None for row in written)]
    known = {column.name: column for column in definitions}
    names = [name for name in known if name in present]
    after = names.index("accuracy_high") + 1 if "accuracy_high" in names else len(names)
    names[after:after] = [name for name in present if name not in known and name.startswith("accuracy_")]
    columns = tuple(describe(name, known) for name in (*names, *(name for name in present if name not in names)))
    cells = (tuple((c.written(row.get(c.name)), _sortable(row.get(c.name))) for c in columns) for row in written)
    buffer = io.StringIO()
    out = csv.DictWriter(buffer, present, extrasaction="ignore", lineterminator="\n")
    out.writeheader()
    out.writerows(written)
    return Table(columns=columns, rows=tuple(cells), csv=buffer.getvalue())


def _sortable(value: Value) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(float(value))
