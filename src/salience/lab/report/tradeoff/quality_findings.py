"""Findings about the answers besides rankings: where accuracy breaks, by kind of question, by the probe."""

from collections.abc import Callable, Mapping

from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.method_styles import phrase, role
from salience.lab.report.kit.words import capital, finite, listed, points, score, share, signed_points
from salience.lab.report.tradeoff.headline import BEST_FREE, BROKEN, telling_keep
from salience.lab.report.tradeoff.rankings import (
    against_free,
    against_random,
    alike,
    beside_random,
    better_than_full,
    controls,
    oracle,
)
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData, kind_column
from salience.lab.report.tradeoff.verdicts import ALL_TOKENS

#: What other pictures may add at the most to the question alone where all answers are said to come from the picture.
LITTLE = 0.05


def unseeing(data: TradeoffData) -> Finding | None:
    """Whether the model is no better than without the picture; then nothing else is said of its answers."""
    blind, full = data.blind, data.full("accuracy")
    if blind is None or full is None:
        return None
    text = f"{score(full)} with all tokens, {score(blind.accuracy)} for {_WITHOUT[blind.name]}"
    if blind.low is not None and blind.high is not None:
        low, high = signed_points(blind.low), signed_points(blind.high)
        text += f"; on the same questions {low} to {high} points, 95% over pictures"
    lead = "The model answers no better than without the picture."
    return Finding(tone="bad", lead=lead, text=f"{text}. Its accuracies say nothing about pruning.")


_WITHOUT = {"question only": "the question alone", "majority answer": "always giving the commonest answer"}


def breaking_point(data: TradeoffData) -> Finding | None:
    """The largest ratio at which even the best training-free method in the record has lost ten points."""
    full, last, lost = data.full("accuracy"), None, 0.0
    if full is None:
        return None
    for keep in data.pruned:
        free = data.best_free(keep)
        if free is None or free.accuracy is None:
            continue
        last, lost = free, max(lost, full - free.accuracy)
        if full - free.accuracy >= BROKEN and data.verdicts.verdict(free.method, keep, ALL_TOKENS) == "worse":
            own = data.value(data.subject, keep, "accuracy")
            beside = "" if own is None or role(data.subject) == "free" else (
                f" {capital(phrase(data.subject))} has {score(own)} there.")  # fmt: skip
            return Finding(
                tone="plain",
                lead=f"At {share(keep)} {BEST_FREE} has lost {points(full - free.accuracy)}.",
                text=f"It is {phrase(free.method)}, which falls from {score(full)} to {score(free.accuracy)}.{beside}",
            )
    if last is None or last.accuracy is None or lost >= BROKEN:
        return None
    return Finding(
        tone="plain",
        lead=f"No ratio tried cost {BEST_FREE} ten points.",
        text=f"At {share(last.keep)}, the smallest of its ratios, it is {phrase(last.method)} with "
        f"{score(last.accuracy)}; all tokens give {score(full)}.",
    )


def suffering_kinds(data: TradeoffData) -> Finding | None:
    """The kinds of question that pruning hurts most, where the choice of tokens matters."""
    keep, losses = telling_keep(data), []
    for kind in data.kinds:
        full, now = data.full(kind_column(kind)), data.value(data.subject, keep, kind_column(kind))
        if full is not None and now is not None:
            losses.append((full - now, kind, full, now))
    if keep is None or len(losses) < 2:
        return None
    bounds = _kind_bounds(data, keep)
    if not all(kind in bounds for _, kind, _, _ in losses):
        return None  # no paired differences: whether any kind suffers is not known
    lost = [each for each in losses if each[0] > 0 and bounds[each[1]][1] < 0]
    own = phrase(data.subject)
    if not lost:
        lead = f"No kind of question loses measurably at {share(keep)} with {own}."
        return Finding(tone="good", lead=lead, text="Each interval of a kind\u2019s difference from all tokens holds "
                       "zero or lies above it.")  # fmt: skip
    loss, kind, full, now = max(lost)
    low, high = (signed_points(-bound).lstrip("+") for bound in reversed(bounds[kind]))
    line = data.kind_line(kind, "majority_by_kind")
    under = ""
    if line is not None and now <= line:
        under = f" That is no better than always giving its commonest answer ({score(line)})."
    others = [f"{name} {points(part)}" for part, name, _, _ in sorted(lost, reverse=True) if name != kind]
    also = f" Also measurable: {listed(others)}." if others else " No other kind loses measurably."
    return Finding(
        tone="bad",
        lead=f"{capital(kind)} questions suffer most: {points(loss)} lost at {share(keep)} with {own}.",
        text=f"From {score(full)} to {score(now)} (95% interval of the loss {low} to {high} points).{under}{also}",
    )


def _kind_bounds(data: TradeoffData, keep: float) -> dict[str, tuple[float, float]]:
    """kind -> the ends of the subject's difference from all tokens at a ratio."""
    found = {}
    for line in data.record.extra.get("kind_differences") or ():
        if isinstance(line, Mapping) and line.get("method") == data.subject and finite(line.get("keep")) == keep:
            low, high = finite(line.get("low")), finite(line.get("high"))
            if low is not None and high is not None:
                found[str(line.get("kind")).replace("_", "-")] = (low, high)
    return found


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
        lead="With all tokens some kinds are within 5 points of their commonest answer.",
        text=f"{capital(listed(weak))}: pruning has little to lose there.",
    )


def probe_loss(data: TradeoffData) -> Finding | None:
    """The probe's accuracy on the kept tokens."""
    keep, full = telling_keep(data), data.full("probe_accuracy")
    if full is None:
        return None
    if not data.probe_reads:
        lead = f"The probe reads {score(full)} of all tokens, too little to tell what is lost."
        return Finding(tone="bad", lead=lead, text="So this report says nothing about information loss.")
    own, random = data.value(data.subject, keep, "probe_accuracy"), data.value("random", keep, "probe_accuracy")
    if keep is None or own is None:
        return None
    lead = f"At {share(keep)} the probe reads {score(own)} of what {phrase(data.subject)} keeps, {score(full)} of all."
    beside = f"Of random tokens it reads {score(random)}." if random is not None and data.subject != "random" else ""
    return Finding(tone="plain", lead=lead, text=beside)


def other_picture(data: TradeoffData) -> Finding | None:
    """Each question with another's picture: what is left is what the question tells by itself."""
    other, line = data.setting("control_other_picture_accuracy"), data.setting("question_only_accuracy")
    told = data.config.get("control_other_picture")
    low, high = (finite(told.get(name)) if isinstance(told, Mapping) else None for name in ("above_low", "above_high"))
    if other is None or line is None or low is None or high is None:
        return None  # without an interval nothing is said
    text = (
        f"Asked of other pictures, the questions are answered at {score(other)}; the question alone gives "
        f"{score(line)} (difference {signed_points(low)} to {signed_points(high)} points, 95% over pictures)."
    )
    if low > 0:
        return Finding(tone="bad", lead="Not all of the accuracy comes from the picture.", text=text)
    if high > LITTLE:
        lead = "Too little was asked of other pictures to tell whether all of the accuracy comes from the picture."
        return Finding(tone="bad", lead=lead, text=text)
    return Finding(tone="good", lead="The answers come from the picture.", text=text)


#: In the order in which the page tells them.
QUALITY: tuple[Callable[[TradeoffData], Finding | None], ...] = (
    alike,
    against_random,
    against_free,
    beside_random,
    controls,
    breaking_point,
    oracle,
    suffering_kinds,
    idle_kinds,
    better_than_full,
    probe_loss,
    other_picture,
)
