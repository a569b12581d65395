"""One trade-off record as figures and sentences read it: means over seeds, by method and ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from salience.core.record import TradeoffRecord
from salience.core.result_rows import TradeoffRow
from salience.lab.report.kit.method_styles import Role, role
from salience.lab.report.kit.reliability import reliability
from salience.lab.report.kit.words import finite, score
from salience.lab.report.tradeoff.verdicts import Verdicts

#: A probe that reads less than this from all tokens can't tell what is lost of them.
PROBE_READS = 0.7
#: A model must be this much better than without the picture where no interval is known.
LEVEL = 0.02


@dataclass(frozen=True, kw_only=True)
class Point:
    """A method at a ratio. means, each: column -> its mean and its values over the seeds that have it
    seeds: number of rows   low, high: bounds of the accuracy"""

    method: str
    keep: float
    seeds: int
    means: Mapping[str, float]
    each: Mapping[str, tuple[float, ...]]
    low: float | None
    high: float | None

    def get(self, column: str) -> float | None:
        """Return the mean of a column; None where no seed has it."""
        return self.means.get(column)

    @property
    def accuracy(self) -> float | None:
        """The mean accuracy, 0..1."""
        return self.get("accuracy")


def is_time(column: str) -> bool:
    """Whether a column is in milliseconds."""
    return column.endswith("_ms") or "_ms_" in column


def combined(rows: Sequence[TradeoffRow]) -> Point:
    """Return the point of a method's seeds at one ratio. A negative time is treated as not measured.

    The interval runs from the mean of the seeds' lower bounds to that of the upper ones, and is widened to hold every
    seed: it shows what other pictures and another seed would change.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        for column, value in row.numbers().items():
            if value >= 0 or not is_time(column):
                found.setdefault(column, []).append(value)
    means = {column: fmean(values) for column, values in found.items()}
    accuracies = found.get("accuracy", [])
    low, high = means.get("accuracy_low"), means.get("accuracy_high")
    if len(accuracies) > 1:
        low = min([*accuracies, *([] if low is None else [low])])
        high = max([*accuracies, *([] if high is None else [high])])
    return Point(
        method=rows[0].method, keep=rows[0].keep, seeds=len(rows), means=means, low=low, high=high,
        each={column: tuple(values) for column, values in found.items()},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Blind:
    """Answers without the picture. low, high: interval of all tokens' accuracy minus theirs"""

    name: str
    accuracy: float
    low: float | None
    high: float | None

    @property
    def phrase(self) -> str:
        """The answers in a sentence."""
        return "the question alone" if self.name == "question only" else "always giving the commonest answer"


class TradeoffData:
    """One trade-off record: its points, verdicts and settings.

    Args:    environment: of the document, which says whether its machine was busy
    """

    def __init__(self, record: TradeoffRecord, environment: Mapping[str, Any] | None = None) -> None:
        self.record, self.config = record, record.config
        self.reliability = reliability(record.config, environment or {})
        groups: dict[tuple[str, float], list[TradeoffRow]] = {}
        for row in record.rows:
            groups.setdefault((row.method, row.keep), []).append(row)
        self.points = {key: combined(rows) for key, rows in groups.items()}
        self.methods = list(dict.fromkeys(row.method for row in record.rows))
        self.keeps = sorted({row.keep for row in record.rows}, reverse=True)
        self.pruned = [keep for keep in self.keeps if keep < 1]

    def at(self, method: str | None, keep: float | None) -> Point | None:
        """Return the point, or None."""
        return None if method is None or keep is None else self.points.get((method, keep))

    def value(self, method: str | None, keep: float | None, column: str) -> float | None:
        """Return a column's mean at a point, or None."""
        point = self.at(method, keep)
        return None if point is None else point.get(column)

    def own(self, keep: float | None, column: str) -> float | None:
        """Return a column's mean of the subject, or None."""
        return self.value(self.subject, keep, column)

    def line(self, method: str) -> list[Point]:
        """Return a method's points from the largest ratio to the smallest."""
        return [point for keep in self.keeps if (point := self.at(method, keep)) is not None]

    def full(self, column: str) -> float | None:
        """Return a column's mean with all tokens, over every method's row at 1 (measured once and repeated)."""
        found = [value for method in self.methods if (value := self.value(method, 1.0, column)) is not None]
        if found:
            return fmean(found)
        return self.setting("full_accuracy") if column == "accuracy" else None

    def setting(self, name: str) -> float | None:
        """Return a number of the configuration, or None."""
        return finite(self.config.get(name))

    def baselines(self, kind: str | None = None) -> list[tuple[str, float]]:
        """Return (name, accuracy) of answers without the picture, of all questions or of one kind."""
        named = (("question only", "question_only"), ("majority answer", "majority"))
        found = [
            (name, self.setting(f"{key}_accuracy") if kind is None else self.kind_line(kind, f"{key}_by_kind"))
            for name, key in named
        ]
        return [(name, value) for name, value in found if value is not None]

    def loss(self, method: str, keep: float | None) -> float | None:
        """Return the information loss: the probe's accuracy on all tokens minus that on those kept."""
        full, kept = self.full("probe_accuracy"), self.value(method, keep, "probe_accuracy")
        return None if full is None or kept is None else full - kept

    def ratio(self, method: str | None, keep: float, column: str) -> float | None:
        """Return how many times less of a column there is than with all tokens."""
        full, kept = self.value(method, 1.0, column) or self.full(column), self.value(method, keep, column)
        return None if not full or not kept else full / kept

    def tokens(self, keep: float) -> float | None:
        """Return the tokens kept at a ratio, mean over all methods."""
        found = [value for method in self.methods if (value := self.value(method, keep, "tokens_kept")) is not None]
        return fmean(found) if found else None

    def of_role(self, *wanted: Role) -> list[str]:
        """Return the methods of these roles, in the order of the record."""
        return [method for method in self.methods if role(method) in wanted]

    def competing(self, keep: float, *wanted: Role) -> list[Point]:
        """Return the points of the methods of these roles whose accuracy is known at a ratio."""
        found = [point for method in self.of_role(*wanted) if (point := self.at(method, keep)) is not None]
        return [point for point in found if point.accuracy is not None]

    def best(self, keep: float, *wanted: Role) -> Point | None:
        """Return the most accurate point of these roles at a ratio, or None."""
        return max(self.competing(keep, *wanted), key=lambda point: point.accuracy or 0.0, default=None)

    def best_free(self, keep: float) -> Point | None:
        """Return the most accurate of the training-free methods in the rows."""
        return self.best(keep, "free")

    def as_good_free(self, keep: float, method: str) -> list[str]:
        """Return the training-free methods with the same accuracy as this one, to three decimals."""
        own = self.value(method, keep, "accuracy")
        return [point.method for point in self.competing(keep, "free") if own is not None and point.method != method
                and score(point.accuracy or 0.0) == score(own)]  # fmt: skip

    @cached_property
    def subject(self) -> str:
        """The method that the report is about: 'saliency', else the first learned one, else the best at last."""
        learned = self.of_role("learned")
        if learned:
            return "saliency" if "saliency" in learned else learned[0]
        free = [self.best_free(keep) for keep in reversed(self.pruned)]
        return next((point.method for point in free if point is not None), self.methods[0])

    @cached_property
    def verdicts(self) -> Verdicts:
        """Verdict between two methods at a ratio."""
        accuracies = {place: point.accuracy for place, point in self.points.items()}
        return Verdicts(self.record.differences, accuracies, self.full("accuracy"))

    @cached_property
    def blind(self) -> Blind | None:
        """The answers without the picture that all tokens are not clearly better than; None where they are.

        By the difference on the same questions, else by the interval of all tokens' accuracy.
        """
        full = self.full("accuracy")
        paired = {line.against: line for line in self.record.blind_differences}
        bounds = [point.low for (_, keep), point in self.points.items() if keep == 1 and point.low is not None]
        for name, accuracy in self.baselines() if full is not None else ():
            line = paired.get(name)
            if line is not None:
                above = line.low > 0
            else:
                above = min(bounds) > accuracy if bounds else full is not None and full >= accuracy + LEVEL
            if not above:
                low, high = (line.low, line.high) if line is not None else (None, None)
                return Blind(name=name, accuracy=accuracy, low=low, high=high)
        return None

    @property
    def probe_reads(self) -> bool:
        """Whether the probe reads enough from all tokens to tell what is lost of them."""
        full = self.full("probe_accuracy")
        return full is not None and full >= PROBE_READS

    @property
    def tower_ms(self) -> float | None:
        """The shortest time of the vision tower: with all tokens, or of a method that merges some of them in it."""
        flops = self.full("flops_vision")
        merged = [point for point in self.points.values() if flops and (point.get("flops_vision") or flops) < flops]
        found = [ms for ms in (self.full("encode_ms"), *(p.get("encode_ms") for p in merged)) if ms is not None]
        return min(found) if found else None

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of question that have a column: 'accuracy_is_there' -> 'is-there'."""
        known = [kind for row in self.record.rows for kind, value in row.accuracy_by_kind.items() if value is not None]
        return [kind.replace("_", "-") for kind in dict.fromkeys(known)]

    def kind_line(self, kind: str, setting: str) -> float | None:
        """Return a kind's baseline in the configuration (`majority_by_kind`, `question_only_by_kind`), or None."""
        table = self.config.get(setting)
        if not isinstance(table, Mapping):
            return None
        return finite(table.get(kind, table.get(kind.replace("-", "_"))))


def kind_column(kind: str) -> str:
    """Return the column of a kind of question."""
    return "accuracy_" + kind.replace("-", "_")
