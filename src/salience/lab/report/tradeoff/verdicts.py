"""Verdicts: which of two methods is better at a ratio, from the difference on the same questions.

Every sentence of the report that ranks two methods asks here, so that no two sentences can disagree. Where the results
hold no such difference there is no verdict, whatever the intervals of the two accuracies are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from salience.lab.report.kit.words import MINUS, finite

Verdict = Literal["better", "worse", "level"]

#: What a method is held against besides other methods, as the results spell it.
ALL_TOKENS, RANDOM = "all tokens", "random"
#: A difference that is further than this from that of the accuracies in the rows is of other questions or broken.
TRUE_TO_ROWS = 0.01


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An accuracy less another on the same questions, with its 95 % interval over pictures."""

    method: str
    keep: float
    against: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """ "level" where the interval holds zero."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "level"

    @property
    def turned(self) -> Difference:
        """The same, seen from the other side."""
        return Difference(
            method=self.against, keep=self.keep, against=self.method, value=-self.value, low=-self.high, high=-self.low
        )

    @property
    def written(self) -> str:
        """In points: "+3.1 (1.2 to 5.0)"."""
        return f"{_points(self.value, '+')} ({_points(self.low)} to {_points(self.high)})"

    @property
    def in_points(self) -> str:
        """ "+3.1 points (1.2 to 5.0)"."""
        return f"{_points(self.value, '+')} points ({_points(self.low)} to {_points(self.high)})"


class Verdicts:
    """The differences of one record. accuracies: (method, keep) -> mean accuracy   full: accuracy with all tokens"""

    def __init__(
        self, lines: Iterable[Any], accuracies: Mapping[tuple[str, float], float | None], full: float | None
    ) -> None:
        self.known: dict[tuple[str, float, str], Difference] = {}
        self.refused = 0
        self._accuracies, self._full = accuracies, full
        for raw in lines:
            line = _difference(raw)
            if line is None or not self._fits(line):
                self.refused += 1
                continue
            self.known.setdefault((line.method, line.keep, line.against), line)
            self.known.setdefault((line.against, line.keep, line.method), line.turned)

    def _fits(self, line: Difference) -> bool:
        """Whether the rows say the same: a sentence must not be contradicted by the table below it."""
        own = self._accuracies.get((line.method, line.keep))
        other = self._full if line.against == ALL_TOKENS else self._accuracies.get((line.against, line.keep))
        return own is None or other is None or abs(line.value - (own - other)) <= TRUE_TO_ROWS

    def of(self, method: str, keep: float | None, against: str) -> Difference | None:
        """The difference, or None where it was not measured."""
        return None if keep is None else self.known.get((method, keep, against))

    def verdict(self, method: str, keep: float | None, against: str) -> Verdict | None:
        """Whether the method is better than the other at a ratio; None where it was not measured."""
        found = self.of(method, keep, against)
        return None if found is None else found.verdict

    def keeps(self, method: str, against: str, verdict: Verdict | None) -> list[float]:
        """The ratios with that verdict, descending."""
        found = {keep for own, keep, other in self.known if (own, other) == (method, against)}
        return sorted((keep for keep in found if self.verdict(method, keep, against) == verdict), reverse=True)


def _difference(raw: Any) -> Difference | None:
    """A line of the results; None for one that is no difference with an interval around it."""
    if not isinstance(raw, Mapping):
        return None
    keep, value, low, high = (finite(raw.get(name)) for name in ("keep", "difference", "low", "high"))
    if keep is None or value is None or low is None or high is None or not low <= high:
        return None
    return Difference(
        method=str(raw.get("method")), keep=keep, against=str(raw.get("against")), value=value, low=low, high=high
    )


def _points(value: float, plus: str = "") -> str:
    text = f"{100 * value:.1f}"
    if float(text) == 0:
        return "0.0"
    return text.replace("-", MINUS) if value < 0 else plus + text
