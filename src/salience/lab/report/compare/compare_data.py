"""A comparison's record as its figures and words ask for it: means over seeds with the seeds' range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from salience.lab.report.kit.method_styles import Style
from salience.lab.report.kit.reliability import reliability
from salience.lab.report.kit.words import finite
from salience.lab.report.load import Record

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


@dataclass(frozen=True, kw_only=True)
class Against:
    """Two models at every length both were timed at. ratios: length -> first over second, in the order of length."""

    first: str
    second: str
    ratios: Mapping[float, float]


class CompareData:
    """One comparison, ready to be asked."""

    def __init__(self, record: Record, environment: Mapping[str, Any] | None = None) -> None:
        self.record, self.config = record, record.config
        self.reliability = reliability(record.config, environment or {})
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

    @property
    def task(self) -> str:
        """The task's name without its options."""
        name, _, rest = str(self.config.get("task") or "").partition(":")
        return f"{name}:{rest}" if name in ("csv", "text") else name

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(causal, non-causal): models that differ in that alone, a Mamba for each B or the name without :noncausal."""
        return [
            (one, other) for other in self.models if self.final.get(other, {}).get("forwards") is False
            for one in self.models if self.final.get(one, {}).get("forwards") and _same(self.final, one, other)
        ]  # fmt: skip

    def test(self, first: str, second: str) -> Mapping[str, Any] | None:
        """The test between two models, turned so that the difference is that of `first` over `second`."""
        for line in self.lines("tests"):
            if (line["first"], line["second"]) == (first, second):
                return line
            if (line["first"], line["second"]) == (second, first):
                turned = {"difference": -line["difference"], "low": -line["high"], "high": -line["low"]}
                return {**line, **turned, "first": first, "second": second}
        return None

    def against(self, column: str) -> list[Against]:
        """Every model beside the one of causal attention alone, where there is one: a column by length, as a ratio."""
        attention = [name for name, line in self.final.items() if set(str(line.get("pattern"))) == {"A"}]
        reference = next((name for name in attention if self.final[name].get("forwards")), None)
        if reference is None:
            return []
        base = self._by_length(reference, column)
        found = []
        for model in self.models:
            own = self._by_length(model, column)
            ratios = {length: own[length] / base[length] for length in sorted(own) if base.get(length)}
            if model not in attention and ratios:
                found.append(Against(first=model, second=reference, ratios=ratios))
        return found

    def _by_length(self, model: str, column: str) -> dict[float, float]:
        lines = [line for line in self.lines("throughput") if line.get("model") == model]
        known = ((finite(line.get("length")), finite(line.get(column))) for line in lines)
        return {length: value for length, value in known if length is not None and value is not None}


def _same(final: Mapping[str, Mapping[str, Any]], causal: str, both: str) -> bool:
    """Whether two models differ in their direction alone."""
    patterns = [str(final[name].get("pattern", name)) for name in (causal, both)]
    return patterns[1].replace("B", "M") == patterns[0] or both == f"{causal}:noncausal"
