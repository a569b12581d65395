"""The page's title, its two-sentence answer and its tiles, in words and numbers taken from the record."""

from dataclasses import dataclass

from salience.lab.report.kit.method_styles import phrase, role, title
from salience.lab.report.kit.words import (
    byte_size,
    capital,
    listed,
    milliseconds,
    pace,
    points,
    score,
    share,
    times,
    whole_share,
)
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdicts import ALL_TOKENS, RANDOM, Difference, Verdict

#: A method holds while it has surely lost no more than this part of what the picture brings: of the accuracy with all
#: tokens above that without the picture.
MARGIN = 0.05
#: An accuracy this far below the full one has broken; ten points, but for what binary fractions add.
BROKEN = 0.10 - 1e-9
#: The best of the training-free methods that are in the record, never of all there are.
BEST_FREE = "the best training-free method of those measured here"

NEUTRAL = "What pruning visual tokens saves, and what it costs"
#: A verdict in a sentence, the same everywhere.
VERBS: dict[Verdict, str] = {"better": "beats", "worse": "is worse than", "level": "can\u2019t be told from"}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure to take home: what it is, its value, and what stands beside it."""

    label: str
    value: str
    note: str


def holds(data: TradeoffData, method: str, keep: float) -> bool:
    """Whether the lower end of its difference from all tokens, on the same questions, is within MARGIN."""
    full, apart = data.full("accuracy"), data.verdicts.of(method, keep, ALL_TOKENS)
    if full is None or apart is None:
        return False
    lines = [data.setting(name) or 0.0 for name in ("question_only_accuracy", "majority_accuracy")]
    return apart.low >= -MARGIN * (full - max(lines))


def operating_keep(data: TradeoffData) -> float | None:
    """The smallest ratio at which the subject holds, there and at every larger one; None when it does at none."""
    found = None
    for keep in data.pruned:
        if not holds(data, data.subject, keep):
            return found
        found = keep
    return found


def telling_keep(data: TradeoffData) -> float | None:
    """The largest ratio at which random tokens have lost ten points, for there the choice shows; else the smallest."""
    full = data.full("accuracy")
    for keep in data.pruned:
        random = data.value(RANDOM, keep, "accuracy")
        if full is not None and random is not None and full - random >= BROKEN:
            return keep
    return data.pruned[-1] if data.pruned else None


def headline(data: TradeoffData) -> str:
    """The title: the most that was pruned while the accuracy held, and what it brought.

    A quick run, one on a busy machine and one of a model that does not look make none.
    """
    if data.reliability.title is not None:
        return f"{data.reliability.title}: what pruning visual tokens saves, and what it costs"
    if not data.full("accuracy") or not data.pruned or data.blind is not None:
        return NEUTRAL
    keep = operating_keep(data)
    if keep is None:
        return _no_keep(data)
    lost = data.verdicts.of(data.subject, keep, ALL_TOKENS)
    worth = f"lose {points(lost.value)} of accuracy" if lost and lost.verdict == "worse" else "lose nothing measurable"
    who = f"With {phrase(data.subject)}"
    if data.subject != RANDOM and holds(data, RANDOM, keep):
        who += " as with random tokens"
    text = f"{who}, {share(keep)} of the visual tokens {worth}"
    faster = data.ratio(data.subject, keep, "first_token_ms")
    if faster is None:
        return text
    return f"{text}, {'and' if faster >= 1.05 else 'but'} the first token comes {pace(faster)}"


def _no_keep(data: TradeoffData) -> str:
    if data.verdicts.keeps(data.subject, ALL_TOKENS, "worse") == data.pruned:
        return f"With {phrase(data.subject)}, pruning costs accuracy at every ratio tried"
    return NEUTRAL


def answer(data: TradeoffData) -> list[str]:
    """Two sentences: what pruning brings at its best, and how the choice of tokens compares where it matters."""
    if data.reliability.quick:
        return []
    if data.blind is not None:
        without = "always giving the commonest answer" if data.blind.name == "majority answer" else "the question alone"
        return [
            f"With all tokens the model answers {score(data.full('accuracy') or 0.0)} of the questions correctly, no "
            f"better than without the picture: {without} gives {score(data.blind.accuracy)}.",
            "What pruning costs can't be seen on such a model. Only times, arithmetic and memory below mean something.",
        ]
    return [sentence for sentence in (_first(data), _second(data)) if sentence]


def _first(data: TradeoffData) -> str:
    full, keep = data.full("accuracy"), operating_keep(data)
    if full is None or not data.pruned:
        return ""
    keep = data.pruned[0] if keep is None else keep
    kept = data.value(data.subject, keep, "accuracy")
    if kept is None:
        return ""
    text = (
        f"With {phrase(data.subject)}, {_tokens(data, keep)} answer {score(kept)} of the questions correctly, "
        f"against {score(full)} with all of them"
    )
    apart = data.verdicts.of(data.subject, keep, ALL_TOKENS)
    if apart is not None:
        text += f", {apart.in_points}"
    now, before = data.value(data.subject, keep, "first_token_ms"), data.full("first_token_ms")
    if now is not None and before is not None and data.reliability.times:
        text += f", and the first token comes after {milliseconds(now)} instead of {milliseconds(before)}"
    return text + "."


def _tokens(data: TradeoffData, keep: float) -> str:
    tokens, total = data.tokens(keep), data.setting("n_visual_tokens") or data.tokens(1.0)
    if tokens is None or total is None:
        return f"{share(keep)} of the visual tokens"
    return f"{tokens:.0f} of {total:.0f} visual tokens ({share(keep)})"


def _second(data: TradeoffData) -> str:
    keep = telling_keep(data)
    own = data.at(data.subject, keep)
    if keep is None or own is None or own.accuracy is None:
        return ""
    said = [part for part in (_beside_random(data, keep), _beside_free(data, keep)) if part]
    if not said:
        return ""
    return f"{_where(data, keep)}, {phrase(own.method)} answers {score(own.accuracy)}: it {' and '.join(said)}."


def tied(data: TradeoffData, keep: float) -> str:
    """ ", as DivPrune and VisPruner" where training-free methods share the best accuracy of a ratio."""
    others = data.as_good_free(keep)
    return f", as {listed([phrase(name) for name in others])}" if others else ""


def _where(data: TradeoffData, keep: float) -> str:
    full, random = data.full("accuracy"), data.value(RANDOM, keep, "accuracy")
    if full is None or random is None or full - random < BROKEN:
        return f"At {share(keep)}"
    return f"At {share(keep)}, where random tokens are {points(full - random)} below all of them"


def _beside_random(data: TradeoffData, keep: float) -> str:
    apart, random = data.verdicts.of(data.subject, keep, RANDOM), data.value(RANDOM, keep, "accuracy")
    if apart is None or random is None:
        return ""
    free = data.best_free(keep)
    also = f", {BEST_FREE}" if free is not None and free.method == RANDOM and role(data.subject) != "free" else ""
    return f"{VERBS[apart.verdict]} random tokens ({score(random)}){also}"


def _beside_free(data: TradeoffData, keep: float) -> str:
    free = data.best_free(keep)
    if role(data.subject) == "free" or free is None or free.accuracy is None or free.method == RANDOM:
        return ""
    apart = data.verdicts.of(data.subject, keep, free.method)
    if apart is None:
        return ""
    return f"{VERBS[apart.verdict]} {BEST_FREE}, {phrase(free.method)} ({score(free.accuracy)}{tied(data, keep)})"


def relation(data: TradeoffData, method: str, verdict: Verdict, other: str, keeps: str) -> str:
    """One sentence: "A uniform grid beats random tokens at 25%." """
    return f"{capital(phrase(method))} {VERBS[verdict]} {phrase(other)} at {keeps}."


def tiles(data: TradeoffData) -> list[Tile]:
    """Up to six figures; one that was not measured is left out, and so is what may not be quoted."""
    if data.reliability.quick:
        return []
    full = _full_tile(data)
    if data.blind is not None:
        return [full] if full is not None else []
    near = list(dict.fromkeys(near_keep(data, wanted) for wanted in (0.25, 0.1)))
    made = [full, *(_kept_tile(data, keep) for keep in near)]
    if data.reliability.times:
        made += [_first_tile(data), _prefill_tile(data)]
    return [tile for tile in [*made, _cache_tile(data)] if tile is not None]


def near_keep(data: TradeoffData, wanted: float) -> float | None:
    """The measured ratio below 1 nearest to the one wanted."""
    return min(data.pruned, key=lambda keep: abs(keep - wanted)) if data.pruned else None


def _full_tile(data: TradeoffData) -> Tile | None:
    full = data.full("accuracy")
    if full is None:
        return None
    lines = [
        f"{name} {score(value)}"
        for name, column in (("question only", "question_only_accuracy"), ("majority answer", "majority_accuracy"))
        if (value := data.setting(column)) is not None
    ]
    beside = ", ".join(lines)
    if data.blind is not None:
        beside += ": no better than without the picture"
    return Tile(label="accuracy with all tokens", value=score(full), note=beside)


def _kept_tile(data: TradeoffData, keep: float | None) -> Tile | None:
    kept, random = data.value(data.subject, keep, "accuracy"), data.value(RANDOM, keep, "accuracy")
    if keep is None or kept is None:
        return None
    apart = data.verdicts.of(data.subject, keep, ALL_TOKENS)
    parts = [] if apart is None else [f"{apart.in_points} from all tokens"]
    if random is not None and data.subject != RANDOM:
        parts.append(f"random tokens {score(random)}")
    return Tile(label=f"accuracy at {share(keep)}, {title(data.subject)}", value=score(kept), note="; ".join(parts))


def _first_tile(data: TradeoffData) -> Tile | None:
    keep = near_keep(data, 0.25)
    before, now = data.full("first_token_ms"), data.value(data.subject, keep, "first_token_ms")
    if keep is None or not before or not now:
        return None
    value, label = _pace(before / now, "sooner", "later", "as soon")
    note = f"{milliseconds(before)} with all tokens, {milliseconds(now)} then"
    return Tile(label=f"{label} to the first token at {share(keep)}", value=value, note=note)


def _pace(ratio: float, more: str, less: str, same: str) -> tuple[str, str]:
    """(factor, word) of a speed-up, of what became slower, or of what is as fast to within a twentieth."""
    if ratio >= 1.05:
        return times(ratio), more
    return (times(1.0), same) if ratio > 1 / 1.05 else (times(1 / ratio), less)


def _prefill_tile(data: TradeoffData) -> Tile | None:
    keep = near_keep(data, 0.25)
    faster = None if keep is None else data.ratio(data.subject, keep, "prefill_ms")
    if keep is None or faster is None:
        return None
    told = data.ratio(data.subject, keep, "flops_llm")
    note = "language model alone" + ("" if told is None else f"; its FLOPs predict {times(told)}")
    value, label = _pace(faster, "faster", "slower", "as fast a")
    return Tile(label=f"{label} prefill at {share(keep)}", value=value, note=note)


def _cache_tile(data: TradeoffData) -> Tile | None:
    keep = near_keep(data, 0.25)
    before, now = data.full("kv_bytes"), data.value(data.subject, keep, "kv_bytes")
    if keep is None or not before or not now:
        return None
    note = f"{byte_size(before)} with all tokens, {byte_size(now)} then"
    return Tile(label=f"of the key-value cache at {share(keep)}", value=whole_share(now / before), note=note)


def gap(data: TradeoffData, apart: Difference) -> str:
    """ "at 10% 0.876 against 0.556 [+32.0 (29.5 to 34.8)]" """
    own, other = (data.value(method, apart.keep, "accuracy") for method in (apart.method, apart.against))
    values = "" if own is None or other is None else f"{score(own)} against {score(other)} "
    return f"at {share(apart.keep)} {values}[{apart.written}]"
