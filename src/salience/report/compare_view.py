"""A comparison's record as its figures and words ask for it: means over seeds with the seeds' range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from salience.report.load import Record
from salience.report.methods import Style
from salience.report.words import finite

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
class At:
    """A column's mean over the seeds that have it, and their range."""

    mean: float
    low: float
    high: float


class CompareView:
    """One comparison, ready to be asked."""

    def __init__(self, record: Record) -> None:
        self.record, self.config = record, record.config
        self.models = list(dict.fromkeys(str(row["model"]) for row in record.rows))
        self.final = {str(line["model"]): line for line in self.lines("final")}
        spare = iter(_SPARE * (1 + len(self.models) // len(_SPARE)))
        self.styles = {model: _STYLES.get(model) or next(spare) for model in self.models}

    def lines(self, part: str) -> list[Mapping[str, Any]]:
        """One of the record's further tables (final, tests, longer, control, throughput, diverged)."""
        found = self.record.extra.get(part)
        return [line for line in found if isinstance(line, Mapping)] if isinstance(found, list) else []

    def epochs(self, model: str, column: str) -> dict[int, At]:
        """epoch -> the column over seeds, where it was measured."""
        found: dict[int, list[float]] = {}
        for row in self.record.rows:
            value, epoch = finite(row.get(column)), finite(row.get("epoch"))
            if row["model"] == model and value is not None and epoch is not None:
                found.setdefault(int(epoch), []).append(value)
        return {epoch: At(mean=fmean(v), low=min(v), high=max(v)) for epoch, v in sorted(found.items())}

    def last(self, model: str) -> float | None:
        """The mean accuracy after the last epoch."""
        if model in self.final:
            return finite(self.final[model].get("accuracy"))
        each = self.epochs(model, "test_accuracy")
        return each[max(each)].mean if each else None

    def setting(self, name: str) -> float | None:
        """A number of the configuration, or None."""
        return finite(self.config.get(name))
