"""Verdicts in words: the same verb for the same verdict in every sentence of the report."""

from __future__ import annotations

from salience.core.result_tables import AccuracyDifference
from salience.lab.report.kit.method_styles import phrase
from salience.lab.report.kit.words import capital, listed, points_apart, ranged, score, share
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


def tied(data: TradeoffData, keep: float) -> str:
    """ ", as DivPrune and VisPruner" where training-free methods share the best accuracy of a ratio."""
    others = data.as_good_free(keep)
    return f", as {listed([phrase(name) for name in others])}" if others else ""


def accuracies(data: TradeoffData, line: AccuracyDifference) -> str:
    """ "at 10% 0.876 against 0.556 [+32.0 (29.5 to 34.8)]" """
    own, other = (data.value(method, line.keep, "accuracy") for method in (line.method, line.against))
    values = "" if own is None or other is None else f"{score(own)} against {score(other)} "
    return f"at {share(line.keep)} {values}[{interval(line)}]"


def beside_best(data: TradeoffData, line: AccuracyDifference, also: str = "") -> str:
    """ "At 5% the best one is DivPrune: 0.886; the learned saliency has 0.735 [−15.1 (−17.8 to −12.5)]." """
    own, other = (data.value(name, line.keep, "accuracy") for name in (line.method, line.against))
    values = "" if own is None or other is None else f"{score(other)}; {phrase(line.method)} has {score(own)} "
    return f"At {share(line.keep)} the best one is {phrase(line.against)}{also}: {values}[{interval(line)}]."
