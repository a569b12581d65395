"""Which methods are better than random tokens, told from differences on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from salience.report.finding import Finding
from salience.report.methods import phrase, role
from salience.report.series import View
from salience.report.words import MINUS, capital, finite, share


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A method's accuracy less that of random tokens (or of all tokens), with its 95 % interval over pictures."""

    method: str
    keep: float
    value: float
    low: float
    high: float

    @property
    def written(self) -> str:
        """In points: "+3.1 (1.2 to 5.0)"."""
        return f"{_points(self.value, '+')} ({_points(self.low)} to {_points(self.high)})"


def differences(view: View, against: str = "random") -> list[Difference]:
    """The record's differences from that; none in a record without them."""
    found = []
    for line in view.record.extra.get("differences") or ():
        if not isinstance(line, Mapping) or line.get("against") != against:
            continue
        numbers = [finite(line.get(name)) for name in ("keep", "difference", "low", "high")]
        keep, value, low, high = numbers
        if keep is not None and value is not None and low is not None and high is not None:
            found.append(Difference(method=str(line.get("method")), keep=keep, value=value, low=low, high=high))
    return found


def unproven(view: View) -> Finding | None:
    """The methods that are not better than random tokens somewhere: the interval of the difference reaches zero."""
    told = [line for line in differences(view) if role(line.method) != "control"]
    level = [line for line in told if line.low <= 0 <= line.high]
    worse = [line for line in told if line.high < 0]
    if not told:
        return None
    names = list(dict.fromkeys(line.method for line in told))
    if not level and not worse:
        lead = "Every method beats random tokens at every ratio, on the same questions."
        return Finding(tone="good", lead=lead, text=_everywhere(names, told))
    parts = []
    if level:
        parts.append(f"Not told from random tokens: {_by_method(level)}.")
    if worse:
        parts.append(f"Worse than random tokens: {_by_method(worse)}.")
    better = [name for name in names if not any(line.method == name for line in (*level, *worse))]
    if better:
        parts.append(f"Better at every ratio: {', '.join(phrase(name) for name in better)}.")
    parts.append(
        "In brackets the points by which accuracy differs on the same questions, 95 % intervals over pictures."
    )
    return Finding(tone="bad", lead="Not every method beats random tokens.", text=" ".join(parts))


def _everywhere(names: Sequence[str], told: Sequence[Difference]) -> str:
    least = min(told, key=lambda line: line.low)
    return (
        f"{capital(', '.join(phrase(name) for name in names))}; the closest is {phrase(least.method)} at "
        f"{share(least.keep)}, by {least.written} points."
    )


def _by_method(lines: Sequence[Difference]) -> str:
    parts = []
    for method in dict.fromkeys(line.method for line in lines):
        mine = [f"{share(line.keep)} [{line.written}]" for line in lines if line.method == method]
        parts.append(f"{phrase(method)} at {', '.join(mine)}")
    return "; ".join(parts)


def _points(value: float, plus: str = "") -> str:
    text = f"{100 * value:.1f}"
    if float(text) == 0:
        return "0.0"
    return text.replace("-", MINUS) if value < 0 else plus + text
