"""The page's title, its two-sentence answer and its tiles, in words and numbers taken from the record."""

from dataclasses import dataclass

from salience.report.methods import phrase, role
from salience.report.series import LEVEL, Point, View, ahead
from salience.report.words import byte_size, capital, milliseconds, points, score, share, times, whole_share

#: A method holds up while it has this share of the full accuracy.
HOLDS = 0.97
#: An accuracy this far below the full one has broken; ten points, but for what binary fractions add.
BROKEN = 0.10 - 1e-9
#: The accuracies that need no picture, as the configuration names them.
_LINES = ("question_only_accuracy", "majority_accuracy")
#: Random tokens this near to a method make its choice of tokens hardly worth while.
NEAR = 0.03


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure to take home: what it is, its value, and what stands beside it."""

    label: str
    value: str
    note: str


def operating_keep(view: View) -> float | None:
    """The smallest ratio at which the subject, there and at every larger one, holds 97% of the full accuracy.

    None when it does at none.
    """
    full, found = view.full("accuracy"), None
    for keep in view.pruned:
        accuracy = view.value(view.subject, keep, "accuracy")
        if full is None or accuracy is None or accuracy < HOLDS * full:
            return found
        found = keep
    return found


def telling_keep(view: View) -> float | None:
    """The largest ratio at which random tokens have lost ten points, for there the choice shows; else the smallest."""
    full = view.full("accuracy")
    for keep in view.pruned:
        random = view.value("random", keep, "accuracy")
        if full is not None and random is not None and full - random >= BROKEN:
            return keep
    return view.pruned[-1] if view.pruned else None


def _kept(accuracy: float, full: float) -> str:
    held = accuracy / full
    return "all of the accuracy" if held >= 0.995 else f"{whole_share(held)} of the accuracy"


def blind_line(view: View) -> float | None:
    """The better trivial baseline, if even the model with all tokens is not clearly above it; else None."""
    lines = [value for name in _LINES if (value := view.setting(name)) is not None]
    full = view.full("accuracy")
    return max(lines) if lines and full is not None and full < max(lines) + LEVEL else None


def headline(view: View) -> str:
    """The title: the most that was pruned while 97% of the accuracy stayed, and what it brought."""
    full, keep = view.full("accuracy"), operating_keep(view)
    if not full or not view.pruned or blind_line(view) is not None:
        return "What pruning visual tokens saves, and what it costs"
    if keep is None:
        return "Pruning visual tokens cost accuracy at every ratio tried"
    text = f"{share(keep)} of the visual tokens keep {_kept(view.value(view.subject, keep, 'accuracy') or 0.0, full)}"
    faster = view.ratio(view.subject, keep, "first_token_ms")
    if faster is None:
        return text
    if faster < 1.05:
        return f"{text}, but the first token comes no sooner"
    return f"{text}, and the first token comes {times(faster)} sooner"


def answer(view: View) -> list[str]:
    """Two sentences: what pruning brings at its best, and how the choice of tokens compares where it matters."""
    line = blind_line(view)
    if line is not None:
        return [
            f"With all tokens the model answers {score(view.full('accuracy') or 0.0)} of the questions correctly, no "
            f"better than without looking at the picture ({score(line)}).",
            "What pruning costs can't be seen on such a model; only the times and the arithmetic below mean something.",
        ]
    return [sentence for sentence in (_first(view), _second(view)) if sentence]


def _first(view: View) -> str:
    full, keep = view.full("accuracy"), operating_keep(view)
    if full is None or not view.pruned:
        return ""
    if keep is None:
        least = view.pruned[0]
        kept = view.value(view.subject, least, "accuracy")
        if kept is None:
            return ""
        return (
            f"With {phrase(view.subject)}, even {share(least)} of the tokens lower the accuracy from {score(full)} to "
            f"{score(kept)}, below {share(HOLDS)} of what all of them give."
        )
    kept = view.value(view.subject, keep, "accuracy") or 0.0
    text = (
        f"With {phrase(view.subject)}, {_tokens(view, keep)} answer {score(kept)} of the questions correctly, "
        f"against {score(full)} with all of them"
    )
    now, before = view.value(view.subject, keep, "first_token_ms"), view.full("first_token_ms")
    if now is not None and before is not None:
        text += f", and the first token comes after {milliseconds(now)} instead of {milliseconds(before)}"
    random = view.value("random", keep, "accuracy")
    if random is not None and view.subject != "random" and kept - random < NEAR:
        text += f" (but random tokens do {'as' if random >= kept else 'nearly as'} well at that ratio: {score(random)})"
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
    parts = [_beside_random(view, own), _beside_free(view, own)]
    said = [part for part in parts if part]
    if not said:
        return ""
    return f"{capital(_where(view, keep))}, {' '.join(said)}."


def _where(view: View, keep: float) -> str:
    full, random = view.full("accuracy"), view.value("random", keep, "accuracy")
    if full is None or random is None:
        return f"at {share(keep)}"
    if full - random < BROKEN:
        return f"no ratio tried separates the methods by much: at {share(keep)}"
    return f"where the choice of tokens matters, at {share(keep)}"


def _beside_random(view: View, own: Point) -> str:
    random = view.at("random", own.keep)
    if random is None or random.accuracy is None or own.accuracy is None or own.method == "random":
        return ""
    if ahead(own, random):
        return f"it answers {score(own.accuracy)}, {points(own.accuracy - random.accuracy)} more than random tokens,"
    if ahead(random, own):
        return f"it answers {score(own.accuracy)}, {points(own.accuracy - random.accuracy)} fewer than random tokens,"
    return f"it does not beat random tokens clearly ({score(own.accuracy)} against {score(random.accuracy)})"


def _beside_free(view: View, own: Point) -> str:
    free = view.best_free(own.keep)
    if role(own.method) == "free" or free is None or free.accuracy is None or own.accuracy is None:
        return ""
    if free.method == "random":
        return "and no training-free method does better than those"
    name = f"the best training-free method, {phrase(free.method)} ({score(free.accuracy)})"
    if ahead(own, free):
        return f"and beats {name}"
    if ahead(free, own):
        return f"but does not beat {name}, which is {points(free.accuracy - own.accuracy)} better"
    side = "no better than" if own.accuracy <= free.accuracy else "only within the intervals better than"
    return f"but is {side} {name}"


def tiles(view: View) -> list[Tile]:
    """Four to six figures; one that was not measured is left out."""
    made = [_full_tile(view), _held_tile(view, 0.25), _held_tile(view, 0.1), _first_tile(view), _prefill_tile(view)]
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
    return Tile(label="accuracy with all tokens", value=score(full), note=", ".join(lines))


def _held_tile(view: View, wanted: float) -> Tile | None:
    full, keep = view.full("accuracy"), near_keep(view, wanted)
    kept, random = view.value(view.subject, keep, "accuracy"), view.value("random", keep, "accuracy")
    if not full or keep is None or kept is None:
        return None
    note = score(kept)
    if random is not None:
        note += f"; random tokens keep {whole_share(random / full)} ({score(random)})"
    return Tile(label=f"of the accuracy kept at {share(keep)}", value=whole_share(kept / full), note=note)


def _first_tile(view: View) -> Tile | None:
    keep = near_keep(view, 0.25)
    before, now = view.full("first_token_ms"), view.value(view.subject, keep, "first_token_ms")
    if keep is None or not before or not now:
        return None
    label, value = _pace(before / now, "sooner", "later")
    note = f"{milliseconds(before)} with all tokens, {milliseconds(now)} then"
    return Tile(label=f"{label} to the first token at {share(keep)}", value=value, note=note)


def _pace(ratio: float, more: str, less: str) -> tuple[str, str]:
    """(word, factor) of a speed-up, or of what became slower."""
    return (more, times(ratio)) if ratio >= 1 else (less, times(1 / ratio))


def _prefill_tile(view: View) -> Tile | None:
    keep = near_keep(view, 0.25)
    faster = None if keep is None else view.ratio(view.subject, keep, "prefill_ms")
    if keep is None or faster is None:
        return None
    told = view.ratio(view.subject, keep, "flops_llm")
    note = "language model alone" + ("" if told is None else f"; its FLOPs predict {times(told)}")
    label, value = _pace(faster, "faster", "slower")
    return Tile(label=f"{label} prefill at {share(keep)}", value=value, note=note)


def _cache_tile(view: View) -> Tile | None:
    keep = near_keep(view, 0.25)
    before, now = view.full("kv_bytes"), view.value(view.subject, keep, "kv_bytes")
    if keep is None or not before or not now:
        return None
    note = f"{byte_size(before)} down to {byte_size(now)}"
    return Tile(label=f"of the key-value cache at {share(keep)}", value=whole_share(now / before), note=note)
