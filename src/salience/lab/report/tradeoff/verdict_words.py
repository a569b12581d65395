"""Verdicts in words: the same verb for the same verdict in every sentence of the report."""

from __future__ import annotations

from collections.abc import Sequence

from salience.core.result_tables import AccuracyDifference
from salience.lab.report.kit.finding import Numbers
from salience.lab.report.kit.method_styles import phrase, title
from salience.lab.report.kit.words import DASH, capital, points_apart, ranged, score, share
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdicts import Verdict

VERBS: dict[Verdict, str] = {
    "better": "beats", "worse": "is worse than", "level": "is not measurably different from",
}  # fmt: skip
#: Always of the methods in the record, never of all that exist.
BEST_FREE = "the best training-free method of those measured here"
BEST = "the best method of those measured here"


def interval(line: AccuracyDifference) -> str:
    """In points of a hundred: "+3.1 (1.2 to 5.0)"."""
    return f"{points_apart(line.difference, '+')} ({points_apart(line.low)} to {points_apart(line.high)})"


def interval_points(line: AccuracyDifference) -> str:
    """ "+3.1 points (1.2 to 5.0)"."""
    return interval(line).replace(" (", " points (", 1)


def relation(data: TradeoffData, method: str, verdict: Verdict, other: str, keeps: list[float]) -> str:
    """One sentence: "A uniform grid beats random tokens at 25%." other: a method, or a phrase such as `BEST`"""
    return f"{capital(phrase(method))} {VERBS[verdict]} {phrase(other)} at {ranged(keeps, data.keeps)}."


def compared(
    data: TradeoffData, lines: Sequence[AccuracyDifference], own: str, other: str, *, named: bool = False
) -> Numbers:
    """The accuracies of each line and their difference, as a small table.

    own, other: heads of the two columns   named: whether each line's other method is named, with those that share its
    accuracy
    """
    rows = []
    for line in sorted(lines, key=lambda one: -one.keep):
        values = [data.value(method, line.keep, "accuracy") for method in (line.method, line.against)]
        left, right = (DASH if value is None else score(value) for value in values)
        names = ", ".join(title(name) for name in (line.against, *data.as_good_free(line.keep, line.against)))
        rows.append((share(line.keep), left, f"{names} {right}" if named else right, interval(line)))
    return Numbers(head=("keep", own, other, "difference, points"), rows=tuple(rows))
