"""Findings about the answers besides rankings: where accuracy breaks, by kind of question, by the probe."""

from __future__ import annotations

from collections.abc import Mapping

from salience.core.result_tables import ALL_TOKENS
from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.method_styles import phrase, role
from salience.lab.report.kit.words import capital, finite, listed, points, points_apart, score, share
from salience.lab.report.tradeoff.chosen_ratios import BROKEN, telling_keep
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData, kind_column
from salience.lab.report.tradeoff.verdict_words import BEST_FREE
from salience.lab.report.tradeoff.verdicts import RANDOM

#: The most that other pictures may add to the question alone where all answers are said to come from the picture.
LITTLE = 0.05


def ignores_picture(data: TradeoffData) -> Finding | None:
    """Whether the model is no better than without the picture; then nothing else is said of its answers."""
    blind, full = data.blind, data.full("accuracy")
    if blind is None or full is None:
        return None
    text = f"{score(full)} with all tokens, {score(blind.accuracy)} for {blind.phrase}"
    if blind.low is not None and blind.high is not None:
        text += f"; the 95% interval of the difference is {_span(blind.low, blind.high)}"
    lead = "The model answers no better than without the picture."
    return Finding(tone="bad", lead=lead, text=f"{text}. Its accuracies say nothing about pruning.")


def _span(low: float, high: float) -> str:
    return f"{points_apart(low, '+')} to {points_apart(high, '+')} points"


def breaking_point(data: TradeoffData) -> Finding | None:
    """The largest ratio at which even the best training-free method in the record has lost ten points."""
    full = data.full("accuracy")
    best = [
        (free, free.accuracy) for keep in data.pruned if (free := data.best_free(keep)) and free.accuracy is not None
    ]
    if full is None or not best:
        return None
    for free, accuracy in best:
        if full - accuracy >= BROKEN and data.verdicts.verdict(free.method, free.keep, ALL_TOKENS) == "worse":
            own = None if role(data.subject) == "free" else data.own(free.keep, "accuracy")
            beside = "" if own is None else f" {capital(phrase(data.subject))} has {score(own)} there."
            return Finding(
                tone="plain",
                lead=f"At {share(free.keep)} {BEST_FREE} loses {points(full - accuracy)}.",
                text=f"It is {phrase(free.method)}, which falls from {score(full)} to {score(accuracy)}.{beside}",
            )
    if any(full - accuracy >= BROKEN for _, accuracy in best):
        return None
    last, accuracy = best[-1]
    return Finding(
        tone="plain",
        lead=f"At every ratio {BEST_FREE} loses less than ten points.",
        text=f"At {share(last.keep)}, the smallest of its ratios, it is {phrase(last.method)} with "
        f"{score(accuracy)}; all tokens give {score(full)}.",
    )


def suffering_kinds(data: TradeoffData) -> Finding | None:
    """The kinds of question that pruning hurts most, where the choice of tokens matters; none without intervals."""
    keep, own = telling_keep(data), phrase(data.subject)
    columns = {kind: kind_column(kind) for kind in data.kinds}
    known = {kind: (full, now) for kind, column in columns.items()
             if (full := data.full(column)) is not None and (now := data.own(keep, column)) is not None}  # fmt: skip
    bounds = {line.kind.replace("_", "-"): line for line in data.record.kind_differences
              if (line.method, line.keep) == (data.subject, keep)}  # fmt: skip
    if keep is None or len(known) < 2 or not set(known) <= set(bounds):
        return None
    losses = ((full - now, kind) for kind, (full, now) in known.items())
    lost = sorted((each for each in losses if each[0] > 0 and bounds[each[1]].high < 0), reverse=True)
    if not lost:
        lead = f"No kind of question loses measurably at {share(keep)} with {own}."
        text = "For each kind, the interval of the difference from all tokens holds zero or lies above it."
        return Finding(tone="good", lead=lead, text=text)
    (loss, kind), *others = lost
    full, now = known[kind]
    low, high = points_apart(-bounds[kind].high), points_apart(-bounds[kind].low)
    line = data.kind_line(kind, "majority_by_kind")
    under = ""
    if line is not None and now <= line:
        under = f" That is no better than always giving its commonest answer ({score(line)})."
    named = listed([f"{name} {points(part)}" for part, name in others])
    also = f" Also measurable: {named}." if others else " No other kind loses measurably."
    return Finding(
        tone="bad",
        lead=f"{capital(kind)} questions lose most: {points(loss)} at {share(keep)} with {own}.",
        text=f"From {score(full)} to {score(now)} (95% interval of the loss {low} to {high} points).{under}{also}",
    )


def idle_kinds(data: TradeoffData) -> Finding | None:
    """The kinds that the unpruned model itself hardly answers better than their majority answer."""
    weak = []
    for kind in data.kinds:
        full, line = data.full(kind_column(kind)), data.kind_line(kind, "majority_by_kind")
        if full is not None and line is not None and full - line < 0.05:
            weak.append(f"{kind} ({score(full)}; its commonest answer alone gives {score(line)})")
    if not weak:
        return None
    return Finding(
        tone="bad",
        lead="With all tokens, some kinds of question are within 5 points of their commonest answer.",
        text=f"{capital(listed(weak))}: pruning has little to lose there.",
    )


def probe_loss(data: TradeoffData) -> Finding | None:
    """The probe's accuracy on the kept tokens."""
    keep, full = telling_keep(data), data.full("probe_accuracy")
    if full is None:
        return None
    if not data.probe_reads:
        lead = f"The probe reads {score(full)} from all tokens, too little to tell what is lost."
        return Finding(tone="bad", lead=lead, text="So this report says nothing about information loss.")
    own, random = data.own(keep, "probe_accuracy"), data.value(RANDOM, keep, "probe_accuracy")
    if keep is None or own is None:
        return None
    lead = (
        f"At {share(keep)} the probe reads {score(own)} from the tokens that {phrase(data.subject)} keeps, "
        f"{score(full)} from all."
    )
    beside = f"From random tokens it reads {score(random)}." if random is not None and data.subject != RANDOM else ""
    return Finding(tone="plain", lead=lead, text=beside)


def other_picture(data: TradeoffData) -> Finding | None:
    """Accuracy when each question is asked about another picture: what the question tells by itself."""
    other, line = data.setting("control_other_picture_accuracy"), data.setting("question_only_accuracy")
    told = data.config.get("control_other_picture")
    low, high = (finite(told.get(name)) if isinstance(told, Mapping) else None for name in ("above_low", "above_high"))
    if other is None or line is None or low is None or high is None:
        return None  # without an interval nothing is said
    text = (
        f"With another picture, the model answers {score(other)} of the questions correctly; the question alone gives "
        f"{score(line)} (95% interval of the difference {_span(low, high)})."
    )
    if low > 0:
        return Finding(tone="bad", lead="Not all of the accuracy comes from the picture.", text=text)
    if high > LITTLE:
        lead = "The control with other pictures is too small to tell whether all accuracy comes from the picture."
        return Finding(tone="bad", lead=lead, text=text)
    return Finding(tone="good", lead="The answers come from the picture.", text=text)
