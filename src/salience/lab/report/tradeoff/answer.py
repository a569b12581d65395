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
from salience.lab.report.tradeoff.series import View
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


def holds(view: View, method: str, keep: float) -> bool:
    """Whether the lower end of its difference from all tokens, on the same questions, is within MARGIN."""
    full, apart = view.full("accuracy"), view.verdicts.of(method, keep, ALL_TOKENS)
    if full is None or apart is None:
        return False
    lines = [view.setting(name) or 0.0 for name in ("question_only_accuracy", "majority_accuracy")]
    return apart.low >= -MARGIN * (full - max(lines))


def operating_keep(view: View) -> float | None:
    """The smallest ratio at which the subject holds, there and at every larger one; None when it does at none."""
    found = None
    for keep in view.pruned:
        if not holds(view, view.subject, keep):
            return found
        found = keep
    return found


def telling_keep(view: View) -> float | None:
    """The largest ratio at which random tokens have lost ten points, for there the choice shows; else the smallest."""
    full = view.full("accuracy")
    for keep in view.pruned:
        random = view.value(RANDOM, keep, "accuracy")
        if full is not None and random is not None and full - random >= BROKEN:
            return keep
    return view.pruned[-1] if view.pruned else None


def headline(view: View) -> str:
    """The title: the most that was pruned while the accuracy held, and what it brought.

    A quick run, one on a busy machine and one of a model that does not look make none.
    """
    if view.standing.title is not None:
        return f"{view.standing.title}: what pruning visual tokens saves, and what it costs"
    if not view.full("accuracy") or not view.pruned or view.blind is not None:
        return NEUTRAL
    keep = operating_keep(view)
    if keep is None:
        return _no_keep(view)
    lost = view.verdicts.of(view.subject, keep, ALL_TOKENS)
    worth = f"lose {points(lost.value)} of accuracy" if lost and lost.verdict == "worse" else "lose nothing measurable"
    who = f"With {phrase(view.subject)}"
    if view.subject != RANDOM and holds(view, RANDOM, keep):
        who += " as with random tokens"
    text = f"{who}, {share(keep)} of the visual tokens {worth}"
    faster = view.ratio(view.subject, keep, "first_token_ms")
    if faster is None:
        return text
    return f"{text}, {'and' if faster >= 1.05 else 'but'} the first token comes {pace(faster)}"


def _no_keep(view: View) -> str:
    if view.verdicts.keeps(view.subject, ALL_TOKENS, "worse") == view.pruned:
        return f"With {phrase(view.subject)}, pruning costs accuracy at every ratio tried"
    return NEUTRAL


def answer(view: View) -> list[str]:
    """Two sentences: what pruning brings at its best, and how the choice of tokens compares where it matters."""
    if view.standing.quick:
        return []
    if view.blind is not None:
        without = "always giving the commonest answer" if view.blind.name == "majority answer" else "the question alone"
        return [
            f"With all tokens the model answers {score(view.full('accuracy') or 0.0)} of the questions correctly, no "
            f"better than without the picture: {without} gives {score(view.blind.accuracy)}.",
            "What pruning costs can't be seen on such a model. Only times, arithmetic and memory below mean something.",
        ]
    return [sentence for sentence in (_first(view), _second(view)) if sentence]


def _first(view: View) -> str:
    full, keep = view.full("accuracy"), operating_keep(view)
    if full is None or not view.pruned:
        return ""
    keep = view.pruned[0] if keep is None else keep
    kept = view.value(view.subject, keep, "accuracy")
    if kept is None:
        return ""
    text = (
        f"With {phrase(view.subject)}, {_tokens(view, keep)} answer {score(kept)} of the questions correctly, "
        f"against {score(full)} with all of them"
    )
    apart = view.verdicts.of(view.subject, keep, ALL_TOKENS)
    if apart is not None:
        text += f", {apart.in_points}"
    now, before = view.value(view.subject, keep, "first_token_ms"), view.full("first_token_ms")
    if now is not None and before is not None and view.standing.times:
        text += f", and the first token comes after {milliseconds(now)} instead of {milliseconds(before)}"
    return text + "."


def _tokens(view: View, keep: float) -> str:
    tokens, total = view.tokens(keep), view.setting("n_visual_tokens") or view.tokens(1.0)
    if tokens is None or total is None:
        return f"{share(keep)} of the visual tokens"
    return f"{tokens:.0f} of {total:.0f} visual tokens ({share(keep)})"


def _second(view: View) -> str:
    keep = telling_keep(view)
    own = view.at(view.subject, keep)
    if keep is None or own is None or own.accuracy is None:
        return ""
    said = [part for part in (_beside_random(view, keep), _beside_free(view, keep)) if part]
    if not said:
        return ""
    return f"{_where(view, keep)}, {phrase(own.method)} answers {score(own.accuracy)}: it {' and '.join(said)}."


def tied(view: View, keep: float) -> str:
    """ ", as DivPrune and VisPruner" where training-free methods share the best accuracy of a ratio."""
    others = view.as_good_free(keep)
    return f", as {listed([phrase(name) for name in others])}" if others else ""


def _where(view: View, keep: float) -> str:
    full, random = view.full("accuracy"), view.value(RANDOM, keep, "accuracy")
    if full is None or random is None or full - random < BROKEN:
        return f"At {share(keep)}"
    return f"At {share(keep)}, where random tokens are {points(full - random)} below all of them"


def _beside_random(view: View, keep: float) -> str:
    apart, random = view.verdicts.of(view.subject, keep, RANDOM), view.value(RANDOM, keep, "accuracy")
    if apart is None or random is None:
        return ""
    free = view.best_free(keep)
    also = f", {BEST_FREE}" if free is not None and free.method == RANDOM and role(view.subject) != "free" else ""
    return f"{VERBS[apart.verdict]} random tokens ({score(random)}){also}"


def _beside_free(view: View, keep: float) -> str:
    free = view.best_free(keep)
    if role(view.subject) == "free" or free is None or free.accuracy is None or free.method == RANDOM:
        return ""
    apart = view.verdicts.of(view.subject, keep, free.method)
    if apart is None:
        return ""
    return f"{VERBS[apart.verdict]} {BEST_FREE}, {phrase(free.method)} ({score(free.accuracy)}{tied(view, keep)})"


def relation(view: View, method: str, verdict: Verdict, other: str, keeps: str) -> str:
    """One sentence: "A uniform grid beats random tokens at 25%." """
    return f"{capital(phrase(method))} {VERBS[verdict]} {phrase(other)} at {keeps}."


def tiles(view: View) -> list[Tile]:
    """Up to six figures; one that was not measured is left out, and so is what may not be quoted."""
    if view.standing.quick:
        return []
    full = _full_tile(view)
    if view.blind is not None:
        return [full] if full is not None else []
    near = list(dict.fromkeys(near_keep(view, wanted) for wanted in (0.25, 0.1)))
    made = [full, *(_kept_tile(view, keep) for keep in near)]
    if view.standing.times:
        made += [_first_tile(view), _prefill_tile(view)]
    return [tile for tile in [*made, _cache_tile(view)] if tile is not None]


def near_keep(view: View, wanted: float) -> float | None:
    """The measured ratio below 1 nearest to the one wanted."""
    return min(view.pruned, key=lambda keep: abs(keep - wanted)) if view.pruned else None


def _full_tile(view: View) -> Tile | None:
    full = view.full("accuracy")
    if full is None:
        return None
    lines = [
        f"{name} {score(value)}"
        for name, column in (("question only", "question_only_accuracy"), ("majority answer", "majority_accuracy"))
        if (value := view.setting(column)) is not None
    ]
    beside = ", ".join(lines)
    if view.blind is not None:
        beside += ": no better than without the picture"
    return Tile(label="accuracy with all tokens", value=score(full), note=beside)


def _kept_tile(view: View, keep: float | None) -> Tile | None:
    kept, random = view.value(view.subject, keep, "accuracy"), view.value(RANDOM, keep, "accuracy")
    if keep is None or kept is None:
        return None
    apart = view.verdicts.of(view.subject, keep, ALL_TOKENS)
    parts = [] if apart is None else [f"{apart.in_points} from all tokens"]
    if random is not None and view.subject != RANDOM:
        parts.append(f"random tokens {score(random)}")
    return Tile(label=f"accuracy at {share(keep)}, {title(view.subject)}", value=score(kept), note="; ".join(parts))


def _first_tile(view: View) -> Tile | None:
    keep = near_keep(view, 0.25)
    before, now = view.full("first_token_ms"), view.value(view.subject, keep, "first_token_ms")
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


def _prefill_tile(view: View) -> Tile | None:
    keep = near_keep(view, 0.25)
    faster = None if keep is None else view.ratio(view.subject, keep, "prefill_ms")
    if keep is None or faster is None:
        return None
    told = view.ratio(view.subject, keep, "flops_llm")
    note = "language model alone" + ("" if told is None else f"; its FLOPs predict {times(told)}")
    value, label = _pace(faster, "faster", "slower", "as fast a")
    return Tile(label=f"{label} prefill at {share(keep)}", value=value, note=note)


def _cache_tile(view: View) -> Tile | None:
    keep = near_keep(view, 0.25)
    before, now = view.full("kv_bytes"), view.value(view.subject, keep, "kv_bytes")
    if keep is None or not before or not now:
        return None
    note = f"{byte_size(before)} with all tokens, {byte_size(now)} then"
    return Tile(label=f"of the key-value cache at {share(keep)}", value=whole_share(now / before), note=note)


def gap(view: View, apart: Difference) -> str:
    """ "at 10% 0.876 against 0.556 [+32.0 (29.5 to 34.8)]" """
    own, other = (view.value(method, apart.keep, "accuracy") for method in (apart.method, apart.against))
    values = "" if own is None or other is None else f"{score(own)} against {score(other)} "
    return f"at {share(apart.keep)} {values}[{apart.written}]"
