"""Captions of the figures, written from their numbers."""

from __future__ import annotations

from salience.lab.report.kit import words
from salience.lab.report.kit.method_styles import phrase
from salience.lab.report.kit.words import listed, milliseconds, points, score, share, whole_share
from salience.lab.report.tradeoff.chosen_ratios import telling_keep
from salience.lab.report.tradeoff.cost_findings import FIRST_TOKEN, PREFILL, predicted_speedups
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData, kind_column
from salience.lab.report.tradeoff.verdicts import RANDOM

#: A question of each kind of the `scenes` task.
_QUESTIONS = {
    "digit-of-colour": "which digit is red?",
    "colour-of-digit": "which colour is the 7?",
    "is-there": "is there a red 7?",
    "count": "how many digits are there?",
    "relation": "which digit is left of the red one?",
}
_SPEEDUPS = "Filled: measured. Hollow: predicted by the FLOPs."


def loss_latency(data: TradeoffData) -> str:
    keep, text = telling_keep(data), "Lower left is better."
    if not data.reliability.times:
        return text
    loss, ms, before = data.loss(data.subject, keep), data.own(keep, "first_token_ms"), data.full("first_token_ms")
    if keep is not None and loss is not None and ms is not None and before is not None:
        text += (
            f" At {share(keep)}, with {phrase(data.subject)}, the first token comes after {milliseconds(ms)} instead "
            f"of {milliseconds(before)}, and the probe reads {_fewer(loss)}"
        )
        random = data.loss(RANDOM, keep)
        text += f"; with random tokens it reads {_fewer(random)}." if random is not None else "."
    if data.tower_ms is not None:
        merged = data.full("encode_ms") != data.tower_ms
        least = " at least, where tokens are merged in it." if merged else "."
        text += f" The shaded part can\u2019t be reached: the vision tower alone takes {milliseconds(data.tower_ms)}"
        text += least
    return text


def _fewer(loss: float) -> str:
    return f"{points(loss)} {'less' if loss >= 0 else 'more'} than from all tokens"


def accuracy_latency(data: TradeoffData) -> str:
    keep, text = telling_keep(data), "Upper left is better: the same accuracy, sooner."
    own, ms = data.own(keep, "accuracy"), data.own(keep, "first_token_ms")
    if keep is not None and own is not None and ms is not None and data.reliability.times and data.blind is None:
        text += (
            f" {words.capital(phrase(data.subject))} reaches {score(own)} after {milliseconds(ms)} (at {share(keep)})."
        )
    return text


def accuracy_tokens(data: TradeoffData) -> str:
    keep = telling_keep(data)
    if keep is None:
        return "Only the full set of tokens was measured."
    told = [f"{phrase(method)} {score(value)}" for method in data.methods
            if (value := data.value(method, keep, "accuracy")) is not None]  # fmt: skip
    text = f"At {share(keep)}: {listed(told)}. " if told else ""
    return text + "Bars are 95% bootstrap intervals over pictures, widened to hold every seed."


def loss_tokens(data: TradeoffData) -> str:
    keep = telling_keep(data)
    own, random = data.loss(data.subject, keep), data.loss(RANDOM, keep)
    text = "What a small classifier no longer reads from the kept tokens. It is retrained for each method and ratio."
    if keep is not None and own is not None and random is not None and data.subject != RANDOM:
        text += (
            f" At {share(keep)} it reads {_fewer(own)} with {phrase(data.subject)}, and {_fewer(random)} with random "
            "tokens."
        )
    full, nothing = data.full("probe_accuracy"), data.setting("probe_majority_accuracy")
    if full is not None and nothing is not None:
        text += f" A probe that reads nothing would lose {points(full - nothing)}."
    return text


def time_stages(data: TradeoffData) -> str:
    keep = data.keeps[-1]
    first, encode, full = data.own(keep, "first_token_ms"), data.own(keep, "encode_ms"), data.full("first_token_ms")
    text = f"Stages of {phrase(data.subject)}, for one picture; \u201cdecode one\u201d is one further token."
    if first and encode is not None and full is not None and data.reliability.times:
        text += (
            f" The first token comes after {milliseconds(full)} with all tokens and after {milliseconds(first)} at "
            f"{share(keep)}, where the tower takes {whole_share(encode / first)} of the time."
        )
    return text


def flop_stages(data: TradeoffData) -> str:
    full, keep = data.full("flops_total"), data.keeps[-1]
    model, least = data.full("flops_llm"), data.own(keep, "flops_total")
    if not full or model is None or least is None:
        return "A multiply-add counts as two."
    return (
        f"With all tokens {words.flop_count(full)}, {whole_share(model / full)} of it in the language model; "
        f"at {share(keep)} {words.flop_count(least)}. The tower reads the whole picture at every ratio. "
        "A multiply-add counts as two."
    )


def speedups(data: TradeoffData) -> str:
    each = [(abs(measured / predicted - 1), stage.name, keep, measured, predicted) for stage in (PREFILL, FIRST_TOKEN)
            for keep, measured, predicted in predicted_speedups(data, stage)]  # fmt: skip
    if not each or not data.reliability.times:
        return _SPEEDUPS
    apart, name, keep, measured, predicted = max(each)
    return (
        f"{_SPEEDUPS} The largest gap is {whole_share(apart)}: {name} at {share(keep)}, "
        f"{words.times(measured)} measured, {words.times(predicted)} predicted."
    )


def kind_title(name: str) -> str:
    """A kind with a question of it, where one is known."""
    return f"{name}: \u201c{_QUESTIONS[name]}\u201d" if name in _QUESTIONS else name


def kind(data: TradeoffData, name: str) -> str:
    keep, column = telling_keep(data), kind_column(name)
    full, own, random = data.full(column), data.own(keep, column), data.value(RANDOM, keep, column)
    if keep is None or full is None or own is None:
        return ""
    text = f"{score(full)} with all tokens; at {share(keep)} {score(own)} with {phrase(data.subject)}"
    if random is not None and data.subject != RANDOM:
        text += f", {score(random)} with random tokens"
    line = data.kind_line(name, "majority_by_kind")
    if line is not None and own <= line:
        text += ", no better than the commonest answer"
    return text + "."


def inside(data: TradeoffData, text: str, column: str, digits: int) -> str:
    """The definition of a column, and its values for the subject and for random tokens."""
    keep = telling_keep(data)
    own, random = data.own(keep, column), data.value(RANDOM, keep, column)
    if keep is None or own is None:
        return text
    beside = f", random tokens {random:.{digits}f}" if random is not None and data.subject != RANDOM else ""
    return f"{text} At {share(keep)}: {phrase(data.subject)} {own:.{digits}f}{beside}."
