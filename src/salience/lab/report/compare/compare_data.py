"""One comparison record as figures and sentences read it: means over seeds with the seeds' range."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from salience.core.record import CompareRecord
from salience.core.result_tables import ModelDifference
from salience.lab.report.kit.method_styles import Style
from salience.lab.report.kit.reliability import reliability
from salience.lab.report.kit.words import finite

_STYLES = {
    "mamba": Style(colour="blue", marker="o", width=2.2),
    "bimamba": Style(colour="orange", marker="s", width=2.2),
    "transformer": Style(colour="green", marker="^", dash=(6, 2)),
    "s4d": Style(colour="purple", marker="D", dash=(2, 2)),
    "hybrid": Style(colour="pink", marker="v"),
    "lstm": Style(colour="grey", marker="X", dash=(4, 2)),
}
_SPARE = (
    Style(colour="olive", marker="P", dash=(4, 2)),
    Style(colour="cyan", marker=">", dash=(3, 1.5)),
    Style(colour="pink", marker="<", dash=(1.5, 1.5)),
    Style(colour="grey", marker="h", dash=(8, 3)),
    Style(colour="olive", marker="*", dash=(7, 2, 1.5, 2)),
)


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """A column's mean over the seeds that have it, and their range."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class LengthRatios:
    """Two models at every length at which both were timed. ratios: length -> first over second, by length"""

    first: str
    second: str
    ratios: Mapping[float, float]


class CompareData:
    """One comparison record: its models, their results and settings.

    Args:    environment: of the document, which says whether its machine was busy
    """

    def __init__(self, record: CompareRecord, environment: Mapping[str, Any] | None = None) -> None:
        self.record, self.config = record, record.config
        self.reliability = reliability(record.config, environment or {})
        self.models = list(dict.fromkeys(row.model for row in record.rows))
        self.final = {line.model: line for line in record.final}
        spare = iter(_SPARE * (1 + len(self.models) // len(_SPARE)))
        self.styles = {model: _STYLES.get(model) or next(spare) for model in self.models}

    def epochs(self, model: str, column: Literal["train_loss", "test_accuracy"]) -> dict[int, SeedMean]:
        """Return epoch -> the column over seeds, where it was measured."""
        found: dict[int, list[float]] = {}
        for row in self.record.rows:
            if row.model == model and getattr(row, column) is not None:
                found.setdefault(row.epoch, []).append(getattr(row, column))
        return {epoch: SeedMean(mean=fmean(v), low=min(v), high=max(v)) for epoch, v in sorted(found.items())}

    def last(self, model: str) -> float | None:
        """Return the mean accuracy after the last epoch."""
        if model in self.final:
            return self.final[model].accuracy
        each = self.epochs(model, "test_accuracy")
        return each[max(each)].mean if each else None

    def setting(self, name: str) -> float | None:
        """Return a number of the configuration, or None."""
        return finite(self.config.get(name))

    @property
    def task(self) -> str:
        """The task's name without its options."""
        name, _, rest = str(self.config.get("task") or "").partition(":")
        return f"{name}:{rest}" if name in ("csv", "text") else name

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(causal, non-causal) models that differ in direction alone: Mamba for each B, or a name with :noncausal."""
        lines = [self.final[model] for model in self.models if model in self.final]
        causal, both = ([line for line in lines if line.forwards == forwards] for forwards in (True, False))
        return [
            (one.model, other.model)
            for other, one in itertools.product(both, causal)
            if other.pattern.replace("B", "M") == one.pattern or other.model == f"{one.model}:noncausal"
        ]

    def test(self, first: str, second: str) -> ModelDifference | None:
        """Return the test between two models, reversed if need be: its difference is that of `first` over `second`."""
        for line in self.record.tests:
            if (line.first, line.second) == (first, second):
                return line
            if (line.first, line.second) == (second, first):
                return reverse(line)
        return None

    def ratios(self, column: Literal["tokens_per_s", "peak_bytes"]) -> list[LengthRatios]:
        """Return a column by length, of every model over the model of causal attention alone, where there is one."""
        attention = [name for name, line in self.final.items() if set(line.pattern) == {"A"}]
        reference = next((name for name in attention if self.final[name].forwards), None)
        if reference is None:
            return []
        base, found = self.by_length(reference, column), []
        for model in self.models:
            each = {length: own / base[length] for length, own in self.by_length(model, column).items()
                    if base.get(length)}  # fmt: skip
            if model not in attention and each:
                found.append(LengthRatios(first=model, second=reference, ratios=each))
        return found

    def by_length(self, model: str, column: Literal["tokens_per_s", "peak_bytes", "accuracy"]) -> dict[float, float]:
        """Return length -> inference speed or memory, or the accuracy beyond the training's length."""
        lines = self.record.longer if column == "accuracy" else self.record.throughput
        known = [(one.length, getattr(one, column)) for one in lines if one.model == model]
        return dict(sorted((length, value) for length, value in known if value is not None))


def reverse(line: ModelDifference) -> ModelDifference:
    """Return the same difference seen from the second model."""
    return replace(
        line, first=line.second, second=line.first, difference=-line.difference, low=-line.high, high=-line.low
    )
