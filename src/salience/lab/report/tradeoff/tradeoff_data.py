"""A trade-off's rows, seeds drawn together, as points that figures and sentences ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from salience.lab.report.kit.method_styles import role
from salience.lab.report.kit.reliability import reliability
from salience.lab.report.kit.words import finite, score
from salience.lab.report.load import Record, Row
from salience.lab.report.tradeoff.verdicts import Verdicts

#: Columns that begin like a question kind's but are none.
_NOT_KINDS = ("accuracy_low", "accuracy_high")
#: A probe that reads less than this of all tokens can't tell what is lost of them.
PROBE_READS = 0.7
#: So much better than without the picture must a model be where no interval is known.
LEVEL = 0.02


@dataclass(frozen=True, kw_only=True)
class Point:
    """A method at a ratio: means over its seeds; `low` and `high` bound the accuracy, `seeds` counts its rows."""

    method: str
    keep: float
    seeds: int
    means: Mapping[str, float]
    each: Mapping[str, tuple[float, ...]]
    low: float | None
    high: float | None

    def get(self, column: str) -> float | None:
        """The mean of a column over the seeds that have it; None when none has."""
        return self.means.get(column)

    @property
    def accuracy(self) -> float | None:
        """The mean accuracy, 0..1."""
        return self.get("accuracy")


def combined(rows: Sequence[Row]) -> Point:
    """Draws a method's seeds at one ratio together.

    The interval runs from the mean of the seeds' lower bounds to that of the upper ones, and is widened to hold every
    seed: it shows what other pictures and another seed would change.
    """
    columns = {column for row in rows for column in row.values if row.number(column) is not None}
    each = {
        column: tuple(value for row in rows if (value := row.number(column)) is not None) for column in sorted(columns)
    }
    means = {column: fmean(values) for column, values in each.items()}
    accuracies = each.get("accuracy", ())
    low, high = means.get("accuracy_low"), means.get("accuracy_high")
    if len(accuracies) > 1:
        low = min([*accuracies, *([] if low is None else [low])])
        high = max([*accuracies, *([] if high is None else [high])])
    return Point(method=rows[0].method, keep=rows[0].keep, seeds=len(rows), means=means, each=each, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Blind:
    """Answers without the picture: name, accuracy, and that of all tokens, less it, with its interval where known."""

    name: str
    accuracy: float
    low: float | None
    high: float | None


def blind_answers(data: TradeoffData) -> Blind | None:
    """See `TradeoffData.blind`: by the difference on the same questions, else by the interval of all tokens."""
    full = data.full("accuracy")
    paired = {
        str(line.get("against")): (finite(line.get("low")), finite(line.get("high")))
        for line in data.record.extra.get("blind_differences") or ()
        if isinstance(line, Mapping)
    }
    bounds = [point.low for (_, keep), point in data.points.items() if keep == 1 and point.low is not None]
    for name, column in (("question only", "question_only_accuracy"), ("majority answer", "majority_accuracy")):
        line = data.setting(column)
        low, high = paired.get(name, (None, None))
        if line is None or full is None:
            continue
        above = low > 0 if low is not None else min(bounds) > line if bounds else full >= line + LEVEL
        if not above:
            return Blind(name=name, accuracy=line, low=low, high=high)
    return None


class TradeoffData:
    """One trade-off record, ready to be asked."""

    def __init__(self, record: Record, environment: Mapping[str, Any] | None = None) -> None:
        self.record = record
        self.reliability = reliability(record.config, environment or {})
        self.config: Mapping[str, Any] = record.config
        groups: dict[tuple[str, float], list[Row]] = {}
        for row in record.typed:
            groups.setdefault((row.method, row.keep), []).append(row)
        self.points = {key: combined(rows) for key, rows in groups.items()}
        self.methods = list(dict.fromkeys(row.method for row in record.typed))
        self.keeps = sorted({row.keep for row in record.typed}, reverse=True)

    @property
    def pruned(self) -> list[float]:
        """The ratios below 1, descending."""
        return [keep for keep in self.keeps if keep < 1]

    def at(self, method: str | None, keep: float | None) -> Point | None:
        """The point, or None."""
        return None if method is None or keep is None else self.points.get((method, keep))

    def value(self, method: str | None, keep: float | None, column: str) -> float | None:
        """A column's mean at a point, or None."""
        point = self.at(method, keep)
        return None if point is None else point.get(column)

    def line(self, method: str) -> list[Point]:
        """A method's points from the largest ratio to the smallest."""
        return [point for keep in self.keeps if (point := self.at(method, keep)) is not None]

    def full(self, column: str) -> float | None:
        """A column's mean with all tokens, over every method's row at 1 (it was measured once and repeated)."""
        found = [value for method in self.methods if (value := self.value(method, 1.0, column)) is not None]
        if found:
            return fmean(found)
        return self.setting("full_accuracy") if column == "accuracy" else None

    @property
    def tower_ms(self) -> float | None:
        """The least time of the vision tower: with all tokens, or of a method that merges some of them in it."""
        whole, flops = self.full("encode_ms"), self.full("flops_vision")
        merged = [point for point in self.points.values() if flops and (point.get("flops_vision") or flops) < flops]
        found = [ms for ms in (whole, *(point.get("encode_ms") for point in merged)) if ms is not None]
        return min(found) if found else None

    @cached_property
    def verdicts(self) -> Verdicts:
        """Verdict between two methods at a ratio."""
        accuracies = {place: point.accuracy for place, point in self.points.items()}
        return Verdicts(self.record.extra.get("differences") or (), accuracies, self.full("accuracy"))

    @cached_property
    def blind(self) -> Blind | None:
        """The answers without the picture that all tokens are not clearly better than; None where they are."""
        return blind_answers(self)

    def setting(self, name: str) -> float | None:
        """A number of the configuration, or None."""
        return finite(self.config.get(name))

    def loss(self, method: str, keep: float) -> float | None:
        """The information loss: the probe's accuracy on all tokens minus that on those kept."""
        full, kept = self.full("probe_accuracy"), self.value(method, keep, "probe_accuracy")
        return None if full is None or kept is None else full - kept

    @property
    def probe_reads(self) -> bool:
        """Whether the probe reads enough of all tokens to tell what is lost of them."""
        full = self.full("probe_accuracy")
        return full is not None and full >= PROBE_READS

    def ratio(self, method: str | None, keep: float, column: str) -> float | None:
        """How many times less of a column there is than with all tokens."""
        full, kept = self.value(method, 1.0, column) or self.full(column), self.value(method, keep, column)
        return None if not full or not kept else full / kept

    def tokens(self, keep: float) -> float | None:
        """Tokens kept at a ratio, over all methods."""
        found = [value for method in self.methods if (value := self.value(method, keep, "tokens_kept")) is not None]
        return fmean(found) if found else None

    def of_role(self, wanted: str) -> list[str]:
        """The methods of a role, in the order of the record."""
        return [method for method in self.methods if role(method) == wanted]

    @cached_property
    def subject(self) -> str:
        """The method that the report is about: 'saliency', else the first learned one, else the best at last."""
        learned = self.of_role("learned")
        if "saliency" in learned:
            return "saliency"
        if learned:
            return learned[0]
        free = [self.best_free(keep) for keep in reversed(self.pruned)]
        return next((point.method for point in free if point is not None), self.methods[0])

    def best_free(self, keep: float) -> Point | None:
        """The most accurate of the training-free methods in the rows."""
        found = [
            point for method in self.of_role("free") if (point := self.at(method, keep)) and point.accuracy is not None
        ]
        return max(found, key=lambda point: point.accuracy or 0.0) if found else None

    def as_good_free(self, keep: float) -> list[str]:
        """The training-free methods other than `best_free` with the same accuracy, to three decimals."""
        best = self.best_free(keep)
        if best is None or best.accuracy is None:
            return []
        known = {name: self.value(name, keep, "accuracy") for name in self.of_role("free") if name != best.method}
        return [n for n, value in known.items() if value is not None and score(value) == score(best.accuracy)]

    @cached_property
    def kinds(self) -> list[str]:
        """The question kinds that have a column: 'accuracy_is_there' -> 'is-there'."""
        columns = dict.fromkeys(
            column
            for row in self.record.rows
            for column in row
            if column.startswith("accuracy_") and column not in _NOT_KINDS and row[column] is not None
        )
        return [column.removeprefix("accuracy_").replace("_", "-") for column in columns]

    def kind_line(self, kind: str, setting: str) -> float | None:
        """A kind's baseline in the configuration (`majority_by_kind`, `question_only_by_kind`), or None."""
        table = self.config.get(setting)
        if not isinstance(table, Mapping):
            return None
        return finite(table.get(kind, table.get(kind.replace("-", "_"))))


def kind_column(kind: str) -> str:
    """The column of a question kind."""
    return "accuracy_" + kind.replace("-", "_")
