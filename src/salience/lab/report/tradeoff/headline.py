"""The page's title and the summary below it, in words and numbers of the record."""

from __future__ import annotations

from salience.core.result_tables import ALL_TOKENS
from salience.lab.report.kit.method_styles import phrase, role
from salience.lab.report.kit.words import listed, milliseconds, pace, points, score, share
from salience.lab.report.tradeoff.chosen_ratios import BROKEN, holds, operating_keep, telling_keep
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdict_words import BEST_FREE, VERBS, interval_points
from salience.lab.report.tradeoff.verdicts import RANDOM, verdict_of

NEUTRAL = "What pruning visual tokens saves, and what it costs"


def headline(data: TradeoffData) -> str:
    """The title: the most that was pruned while the accuracy held, and what it brought.

    A quick run, a run on a busy machine and a model that ignores the picture have a title without a result.
    """
    if data.reliability.title is not None:
        return f"{data.reliability.title}: what pruning visual tokens saves, and what it costs"
    if not data.full("accuracy") or not data.pruned or data.blind is not None:
        return NEUTRAL
    keep, own = operating_keep(data), phrase(data.subject)
    if keep is None:
        lost = data.verdicts.keeps(data.subject, ALL_TOKENS, "worse") == data.pruned
        return f"With {own}, pruning costs accuracy at every ratio that was tried" if lost else NEUTRAL
    apart = data.verdicts.of(data.subject, keep, ALL_TOKENS)
    lost = apart is not None and verdict_of(apart) == "worse"
    cost = points(apart.difference) + " of accuracy" if apart is not None and lost else "no measurable accuracy"
    also = ", as with random tokens" if data.subject != RANDOM and holds(data, RANDOM, keep) else ""
    text = f"With {own}{also}, keeping {share(keep)} of the visual tokens costs {cost}"
    faster = data.ratio(data.subject, keep, "first_token_ms")
    if faster is None:
        return text
    return f"{text}, {'and' if faster >= 1.05 else 'but'} the first token comes {pace(faster)}"


def summary(data: TradeoffData) -> list[str]:
    """Accuracy and time at the operating ratio, then the choice of tokens beside others; none of a quick run."""
    if data.reliability.quick:
        return []
    if data.blind is not None:
        return [
            f"With all tokens the model answers {score(data.full('accuracy') or 0.0)} of the questions correctly, no "
            f"better than without the picture: {data.blind.phrase} gives {score(data.blind.accuracy)}.",
            "Such a model cannot show what pruning costs. Only times, arithmetic and memory below are meaningful.",
        ]
    return [sentence for sentence in (_operating(data), _choice(data)) if sentence]


def _operating(data: TradeoffData) -> str:
    """Accuracy and time at the operating ratio, beside all tokens."""
    full = data.full("accuracy")
    keep = operating_keep(data) or next(iter(data.pruned), None)
    kept = data.own(keep, "accuracy")
    if full is None or keep is None or kept is None:
        return ""
    text = (
        f"With {phrase(data.subject)} and {_tokens(data, keep)}, the model answers {score(kept)} of the questions "
        f"correctly, against {score(full)} with all tokens"
    )
    apart = data.verdicts.of(data.subject, keep, ALL_TOKENS)
    text += "." if apart is None else f": {interval_points(apart)}."
    now, before = data.own(keep, "first_token_ms"), data.full("first_token_ms")
    if now is not None and before is not None and data.reliability.times:
        text += f" The first token comes after {milliseconds(now)} instead of {milliseconds(before)}."
    return text


def _tokens(data: TradeoffData, keep: float) -> str:
    tokens, total = data.tokens(keep), data.setting("n_visual_tokens") or data.tokens(1.0)
    if tokens is None or total is None:
        return f"{share(keep)} of the visual tokens"
    return f"{tokens:.0f} of {total:.0f} visual tokens ({share(keep)})"


def _choice(data: TradeoffData) -> str:
    """The subject beside random tokens and the best training-free method, where random tokens lose much."""
    keep = telling_keep(data)
    own, full, random = data.own(keep, "accuracy"), data.full("accuracy"), data.value(RANDOM, keep, "accuracy")
    if keep is None or own is None:
        return ""
    said = [part for part in (_beside_random(data, keep), _beside_free(data, keep)) if part]
    if not said:
        return ""
    where = ""
    if full is not None and random is not None and full - random >= BROKEN:
        where = f", where random tokens are {points(full - random)} below all tokens"
    return f"At {share(keep)}{where}, {phrase(data.subject)} reaches {score(own)}: it {' and '.join(said)}."


def _beside_random(data: TradeoffData, keep: float) -> str:
    apart, random = data.verdicts.of(data.subject, keep, RANDOM), data.value(RANDOM, keep, "accuracy")
    if apart is None or random is None:
        return ""
    free = data.best_free(keep)
    also = f", {BEST_FREE}" if free is not None and free.method == RANDOM and role(data.subject) != "free" else ""
    return f"{VERBS[verdict_of(apart)]} random tokens ({score(random)}){also}"


def _beside_free(data: TradeoffData, keep: float) -> str:
    free = data.best_free(keep)
    if role(data.subject) == "free" or free is None or free.accuracy is None or free.method == RANDOM:
        return ""
    apart = data.verdicts.of(data.subject, keep, free.method)
    if apart is None:
        return ""
    others = data.as_good_free(keep, free.method)
    tied = f", as {listed([phrase(name) for name in others])}" if others else ""
    return f"{VERBS[verdict_of(apart)]} {BEST_FREE}, {phrase(free.method)} ({score(free.accuracy)}{tied})"
