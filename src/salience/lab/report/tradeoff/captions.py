"""What to see in each figure, written from its numbers."""

from salience.lab.report.kit.method_styles import phrase
from salience.lab.report.kit.words import (
    capital,
    flop_count,
    listed,
    milliseconds,
    points,
    score,
    share,
    times,
    whole_share,
)
from salience.lab.report.tradeoff.headline import telling_keep
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData, kind_column

#: a question of each kind of the `scenes` task
_QUESTIONS = {
    "digit-of-colour": "which digit is red?",
    "colour-of-digit": "which colour is the 7?",
    "is-there": "is there a red 7?",
    "count": "how many digits are there?",
    "relation": "which digit is left of the red one?",
}


def loss_latency(data: TradeoffData) -> str:
    keep = telling_keep(data)
    loss, ms, before = _loss(data, data.subject, keep), _own(data, keep, "first_token_ms"), data.full("first_token_ms")
    text = "Lower left is better. "
    quoted = data.reliability.times
    if quoted and keep is not None and loss is not None and ms is not None and before is not None:
        text += (
            f"At {share(keep)}, with {phrase(data.subject)}, the first token comes after {milliseconds(ms)} instead of "
            f"{milliseconds(before)}, and the probe reads {_fewer(loss)}"
        )
        random = _loss(data, "random", keep)
        text += f"; with random tokens {_fewer(random)}. " if random is not None else ". "
    encode, merged = data.tower_ms, data.full("encode_ms") != data.tower_ms
    if encode is not None and quoted:
        least = ", at the least, where tokens are merged in it" if merged else ""
        text += f"The shaded part can't be reached: the vision tower alone takes {milliseconds(encode)}{least}."
    return text.strip()


def _fewer(loss: float) -> str:
    """ "3 points less than of all tokens" """
    return f"{points(loss)} {'less' if loss >= 0 else 'more'} than of all tokens"


def accuracy_latency(data: TradeoffData) -> str:
    keep = telling_keep(data)
    own, ms = _own(data, keep, "accuracy"), _own(data, keep, "first_token_ms")
    text = "Upper left is better: the same accuracy, sooner. "
    if keep is not None and own is not None and ms is not None and data.reliability.times and data.blind is None:
        text += f"{capital(phrase(data.subject))} answers {score(own)} after {milliseconds(ms)} (at {share(keep)})."
    return text.strip()


def accuracy_tokens(data: TradeoffData) -> str:
    keep = telling_keep(data)
    if keep is None:
        return "Only the full set of tokens was measured."
    told = [
        f"{phrase(method)} {score(value)}"
        for method in data.methods
        if (value := data.value(method, keep, "accuracy")) is not None
    ]
    text = f"At {share(keep)}: {listed(told)}. " if told else ""
    return text + "Bars are 95% bootstrap intervals over pictures, widened to hold every seed."


def loss_tokens(data: TradeoffData) -> str:
    keep = telling_keep(data)
    own, random = _loss(data, data.subject, keep), _loss(data, "random", keep)
    text = "What a small classifier of the kept tokens no longer reads, retrained for each method and ratio. "
    if keep is not None and own is not None and random is not None and data.subject != "random":
        text += (
            f"At {share(keep)} it reads {_fewer(own)} with {phrase(data.subject)}, {_fewer(random)} with random tokens."
        )
    full, nothing = data.full("probe_accuracy"), data.setting("probe_majority_accuracy")
    if full is not None and nothing is not None:
        text += f" A probe that reads nothing would lose {points(full - nothing)}."
    return text.strip()


def time_stages(data: TradeoffData) -> str:
    keep = data.keeps[-1]
    first, encode, full = (
        _own(data, keep, "first_token_ms"),
        _own(data, keep, "encode_ms"),
        data.full("first_token_ms"),
    )
    text = f"Stages of {phrase(data.subject)}, one picture; decoding is for one further token. "
    if first and encode is not None and full is not None and data.reliability.times:
        text += (
            f"From {milliseconds(full)} down to {milliseconds(first)} to the first token; "
            f"at {share(keep)} the tower is {whole_share(encode / first)} of it."
        )
    return text.strip()


def flop_stages(data: TradeoffData) -> str:
    full, keep = data.full("flops_total"), data.keeps[-1]
    model, least = data.full("flops_llm"), _own(data, keep, "flops_total")
    if not full or model is None or least is None:
        return "A multiply-add counts as two."
    return (
        f"With all tokens {flop_count(full)}, {whole_share(model / full)} of it in the language model; "
        f"at {share(keep)} {flop_count(least)}. The tower sees every patch whatever is kept. "
        "A multiply-add counts as two."
    )


def speedups(data: TradeoffData) -> str:
    worst, where = 0.0, ""
    for name, clock, flops in (
        ("prefill", "prefill_ms", "flops_llm"),
        ("first token", "first_token_ms", "flops_total"),
    ):
        for keep in data.pruned:
            measured, told = data.ratio(data.subject, keep, clock), data.ratio(data.subject, keep, flops)
            if measured and told and abs(measured / told - 1) > worst:
                worst = abs(measured / told - 1)
                where = f"{name} at {share(keep)}: {times(measured)} measured, {times(told)} predicted"
    if not where or not data.reliability.times:
        return "Filled: measured. Hollow: the ratio of the FLOPs."
    return f"Filled: measured. Hollow: the ratio of the FLOPs. Furthest apart, by {whole_share(worst)}: {where}."


def answer_kl(data: TradeoffData) -> str:
    return "Over the answer's tokens, from the unpruned model's distribution; 0 is the same. " + _two(
        data, "answer_kl", 2
    )


def feature_cosine(data: TradeoffData) -> str:
    return "Of the kept tokens' mean with that of all of them; 1 is the same direction. " + _two(
        data, "feature_cosine", 3
    )


def saliency_mass(data: TradeoffData) -> str:
    return "Of the unpruned model's text-to-image attention, one reference for all methods. " + _two(
        data, "saliency_mass", 2
    )


def kind_title(name: str) -> str:
    """A kind with a question of it, where one is known."""
    return f"{name}: \u201c{_QUESTIONS[name]}\u201d" if name in _QUESTIONS else name


def kind(data: TradeoffData, name: str) -> str:
    keep, column = telling_keep(data), kind_column(name)
    full, own, random = data.full(column), _own(data, keep, column), data.value("random", keep, column)
    if keep is None or full is None or own is None:
        return ""
    text = f"{score(full)} with all tokens; at {share(keep)} {score(own)} with {phrase(data.subject)}"
    if random is not None and data.subject != "random":
        text += f", {score(random)} with random tokens"
    line = data.kind_line(name, "majority_by_kind")
    if line is not None and own <= line:
        text += ", no better than the commonest answer"
    return text + "."


def _two(data: TradeoffData, column: str, digits: int) -> str:
    keep = telling_keep(data)
    own, random = _own(data, keep, column), data.value("random", keep, column)
    if keep is None or own is None:
        return ""
    text = f"At {share(keep)}: {phrase(data.subject)} {own:.{digits}f}"
    if random is not None and data.subject != "random":
        text += f", random tokens {random:.{digits}f}"
    return text + "."


def _own(data: TradeoffData, keep: float | None, column: str) -> float | None:
    return data.value(data.subject, keep, column)


def _loss(data: TradeoffData, method: str, keep: float | None) -> float | None:
    return None if keep is None else data.loss(method, keep)
