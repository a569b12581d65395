"""Baselines and limits of a trade-off, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salience.core.result_rows import ROW_COLUMNS
from salience.lab.report.kit.method_styles import phrase
from salience.lab.report.kit.words import capital, listed, ranged, score, share
from salience.lab.report.tradeoff.column_definitions import COLUMNS
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData, is_time
from salience.lab.report.tradeoff.verdicts import RANDOM

_BASELINES = {
    "majority answer": "Always giving the commonest answer scores {}.",
    "question only": "Reading the question without the picture scores {}.",
}


def baseline_notes(data: TradeoffData) -> list[str]:
    """The trivial baselines as sentences."""
    return [_BASELINES[name].format(score(value)) for name, value in reversed(data.baselines())]


def limits(data: TradeoffData, environment: Mapping[str, Any]) -> list[str]:
    """The limits that apply to this record, one sentence each."""
    found = []
    single = [method for method in data.of_role("learned", "control") if _seeds(data, method) < 2]
    if single:
        verb = "is" if len(single) == 1 else "are"
        found.append(f"{capital(listed([phrase(m) for m in single]))} {verb} from one fit: another seed may differ.")
    if RANDOM in data.methods and _seeds(data, RANDOM) < 2:
        found.append("Random tokens are from one draw.")
    found += _not_measured(data)
    found += _fewer_pictures(data)
    if data.full("first_token_ms") is not None and data.reliability.times:
        device = environment.get("device") or "one machine"
        found.append(
            f"Times are medians from one interleaved, warmed-up run on {device}: the ratios are more reliable than the "
            "milliseconds."
        )
    total, model = data.full("flops_total"), data.full("flops_llm")
    if total and model is not None and 1 - model / total >= 0.15:
        found.append(
            f"The vision tower is {share(round(1 - model / total, 2))} of the arithmetic here. In a model of usual "
            "size it is a few per cent, so pruning saves a larger share there."
        )
    found += _negative_times(data)
    found += _not_compared(data)
    found.append(
        "The interval of an accuracy is of that method by itself. Which of two methods is better follows from their "
        "difference on the same questions, not from whether their intervals overlap. Intervals are not corrected for "
        "their number."
    )
    return found


def _not_measured(data: TradeoffData) -> list[str]:
    """Required columns without a value, and ratios that a method lacks."""
    measured = {"method", "seed", *(column for point in data.points.values() for column in point.means)}
    scenes = data.config.get("task") == "scenes"  # other tasks have other kinds of question
    missing = sorted(
        name
        for name in ROW_COLUMNS["tradeoff"]
        if name not in measured and (scenes or not name.startswith("accuracy_"))
    )
    found = []
    if missing:
        found.append(f"Not measured in this run: {listed([name.replace('_', ' ') for name in missing])}.")
    for method in data.methods:
        keeps = [keep for keep in data.keeps if data.at(method, keep) is None]
        if keeps:
            found.append(f"{capital(phrase(method))} was not measured at {ranged(keeps, data.keeps)}.")
    return found


def _negative_times(data: TradeoffData) -> list[str]:
    """Times below zero, as the difference of two measurements may come out on a busy machine."""
    names = {name for row in data.record.rows for name, value in row.numbers().items() if is_time(name) and value < 0}
    shorts = [column.short for column in COLUMNS if column.name in names]
    return [f"Negative times were left out: {listed(shorts)}."] if shorts else []


def _not_compared(data: TradeoffData) -> list[str]:
    """Pairs without a verdict."""
    found = []
    if data.verdicts.refused:
        found.append(
            f"{data.verdicts.refused} of the record\u2019s differences contradict its rows, and were left out."
        )
    own, lacking = data.subject, []
    for keep in data.pruned:
        free = data.best_free(keep)
        others = {RANDOM, free.method if free is not None else RANDOM} - {own}
        if any(data.verdicts.of(own, keep, other) is None for other in others if data.at(other, keep)):
            lacking.append(keep)
    if lacking and data.at(own, lacking[0]) is not None:
        found.append(
            f"At {ranged(lacking, data.keeps)} the record lacks differences on the same questions between "
            f"{phrase(own)} and another method, so nothing is said about which is better."
        )
    return found


def _fewer_pictures(data: TradeoffData) -> list[str]:
    """Methods that were measured on a part of the pictures only."""
    counts = {m: [n for point in data.line(m) if (n := point.get("n_pictures")) is not None] for m in data.methods}
    most = max((n for counted in counts.values() for n in counted), default=0)
    return [
        f"{capital(phrase(method))} was measured on {min(counted):.0f} of the {most:.0f} pictures."
        for method, counted in counts.items()
        if counted and min(counted) < most
    ]


def _seeds(data: TradeoffData, method: str) -> int:
    return max((point.seeds for point in data.line(method)), default=0)
