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
from salience.lab.report.tradeoff.answer import telling_keep
from salience.lab.report.tradeoff.series import View, kind_column

#: a question of each kind of the `scenes` task
_QUESTIONS = {
    "digit-of-colour": "which digit is red?",
    "colour-of-digit": "which colour is the 7?",
    "is-there": "is there a red 7?",
    "count": "how many digits are there?",
    "relation": "which digit is left of the red one?",
}


def loss_latency(view: View) -> str:
    keep = telling_keep(view)
    loss, ms, before = _loss(view, view.subject, keep), _own(view, keep, "first_token_ms"), view.full("first_token_ms")
    text = "Lower left is better. "
    quoted = view.standing.times
    if quoted and keep is not None and loss is not None and ms is not None and before is not None:
        text += (
            f"At {share(keep)}, with {phrase(view.subject)}, the first token comes after {milliseconds(ms)} instead of "
            f"{milliseconds(before)}, and the probe reads {_fewer(loss)}"
        )
        random = _loss(view, "random", keep)
        text += f"; with random tokens {_fewer(random)}. " if random is not None else ". "
    encode, merged = view.tower_ms, view.full("encode_ms") != view.tower_ms
    if encode is not None and quoted:
        least = ", at the least, where tokens are merged in it" if merged else ""
        text += f"The shaded part can't be reached: the vision tower alone takes {milliseconds(encode)}{least}."
    return text.strip()


def _fewer(loss: float) -> str:
    """ "3 points less than of all tokens" """
    return f"{points(loss)} {'less' if loss >= 0 else 'more'} than of all tokens"


def accuracy_latency(view: View) -> str:
    keep = telling_keep(view)
    own, ms = _own(view, keep, "accuracy"), _own(view, keep, "first_token_ms")
    text = "Upper left is better: the same accuracy, sooner. "
    if keep is not None and own is not None and ms is not None and view.standing.times and view.blind is None:
        text += f"{capital(phrase(view.subject))} answers {score(own)} after {milliseconds(ms)} (at {share(keep)})."
    return text.strip()


def accuracy_tokens(view: View) -> str:
    keep = telling_keep(view)
    if keep is None:
        return "Only the full set of tokens was measured."
    told = [
        f"{phrase(method)} {score(value)}"
        for method in view.methods
        if (value := view.value(method, keep, "accuracy")) is not None
    ]
    text = f"At {share(keep)}: {listed(told)}. " if told else ""
    return text + "Bars are 95% bootstrap intervals over pictures, widened to hold every seed."


def loss_tokens(view: View) -> str:
    keep = telling_keep(view)
    own, random = _loss(view, view.subject, keep), _loss(view, "random", keep)
    text = "What a small classifier of the kept tokens no longer reads, retrained for each method and ratio. "
    if keep is not None and own is not None and random is not None and view.subject != "random":
        text += (
            f"At {share(keep)} it reads {_fewer(own)} with {phrase(view.subject)}, {_fewer(random)} with random tokens."
        )
    full, nothing = view.full("probe_accuracy"), view.setting("probe_majority_accuracy")
    if full is not None and nothing is not None:
        text += f" A probe that reads nothing would lose {points(full - nothing)}."
    return text.strip()


def time_stages(view: View) -> str:
    keep = view.keeps[-1]
    first, encode, full = (
        _own(view, keep, "first_token_ms"),
        _own(view, keep, "encode_ms"),
        view.full("first_token_ms"),
    )
    text = f"Stages of {phrase(view.subject)}, one picture; decoding is for one further token. "
    if first and encode is not None and full is not None and view.standing.times:
        text += (
            f"From {milliseconds(full)} down to {milliseconds(first)} to the first token; "
            f"at {share(keep)} the tower is {whole_share(encode / first)} of it."
        )
    return text.strip()


def flop_stages(view: View) -> str:
    full, keep = view.full("flops_total"), view.keeps[-1]
    model, least = view.full("flops_llm"), _own(view, keep, "flops_total")
    if not full or model is None or least is None:
        return "A multiply-add counts as two."
    return (
        f"With all tokens {flop_count(full)}, {whole_share(model / full)} of it in the language model; "
        f"at {share(keep)} {flop_count(least)}. The tower sees every patch whatever is kept. "
        "A multiply-add counts as two."
    )


def speedups(view: View) -> str:
    worst, where = 0.0, ""
    for name, clock, flops in (
        ("prefill", "prefill_ms", "flops_llm"),
        ("first token", "first_token_ms", "flops_total"),
    ):
        for keep in view.pruned:
            measured, told = view.ratio(view.subject, keep, clock), view.ratio(view.subject, keep, flops)
            if measured and told and abs(measured / told - 1) > worst:
                worst = abs(measured / told - 1)
                where = f"{name} at {share(keep)}: {times(measured)} measured, {times(told)} predicted"
    if not where or not view.standing.times:
        return "Filled: measured. Hollow: the ratio of the FLOPs."
    return f"Filled: measured. Hollow: the ratio of the FLOPs. Furthest apart, by {whole_share(worst)}: {where}."


def answer_kl(view: View) -> str:
    return "Over the answer's tokens, from the unpruned model's distribution; 0 is the same. " + _two(
        view, "answer_kl", 2
    )


def feature_cosine(view: View) -> str:
    return "Of the kept tokens' mean with that of all of them; 1 is the same direction. " + _two(
        view, "feature_cosine", 3
    )


def saliency_mass(view: View) -> str:
    return "Of the unpruned model's text-to-image attention, one reference for all methods. " + _two(
        view, "saliency_mass", 2
    )


def kind_title(name: str) -> str:
    """A kind with a question of it, where one is known."""
    return f"{name}: \u201c{_QUESTIONS[name]}\u201d" if name in _QUESTIONS else name


def kind(view: View, name: str) -> str:
    keep, column = telling_keep(view), kind_column(name)
    full, own, random = view.full(column), _own(view, keep, column), view.value("random", keep, column)
    if keep is None or full is None or own is None:
        return ""
    text = f"{score(full)} with all tokens; at {share(keep)} {score(own)} with {phrase(view.subject)}"
    if random is not None and view.subject != "random":
        text += f", {score(random)} with random tokens"
    line = view.kind_line(name, "majority_by_kind")
    if line is not None and own <= line:
        text += ", no better than the commonest answer"
    return text + "."


def _two(view: View, column: str, digits: int) -> str:
    keep = telling_keep(view)
    own, random = _own(view, keep, column), view.value("random", keep, column)
    if keep is None or own is None:
        return ""
    text = f"At {share(keep)}: {phrase(view.subject)} {own:.{digits}f}"
    if random is not None and view.subject != "random":
        text += f", random tokens {random:.{digits}f}"
    return text + "."


def _own(view: View, keep: float | None, column: str) -> float | None:
    return view.value(view.subject, keep, column)


def _loss(view: View, method: str, keep: float | None) -> float | None:
    return None if keep is None else view.loss(method, keep)
