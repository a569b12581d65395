"""Findings about which method is better, all of them from the table of verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.method_styles import phrase, role
from salience.lab.report.kit.words import capital, finite, listed, points, ranged, score, share
from salience.lab.report.tradeoff.headline import BEST_FREE, VERBS, gap, relation, tied
from salience.lab.report.tradeoff.tradeoff_data import Point, TradeoffData
from salience.lab.report.tradeoff.verdicts import ALL_TOKENS, RANDOM, Difference, Verdict

_ORACLE = "oracle"


def compared(data: TradeoffData, keep: float) -> list[Point]:
    """The points of the methods that compete at a ratio: learned and training-free, no oracles, no controls."""
    names = [method for method in data.methods if role(method) in ("learned", "free")]
    return [point for name in names if (point := data.at(name, keep)) is not None and point.accuracy is not None]


def alike_keeps(data: TradeoffData) -> list[float]:
    """The ratios below 1 at which every two competing methods were compared and none is better than another."""
    found = []
    for keep in data.pruned:
        names = [point.method for point in compared(data, keep)]
        pairs = [(one, other) for number, one in enumerate(names) for other in names[:number]]
        if pairs and all(data.verdicts.verdict(one, keep, other) == "level" for one, other in pairs):
            found.append(keep)
    return found


def alike(data: TradeoffData) -> Finding | None:
    """The ratios at which a result says little about any method."""
    keeps = alike_keeps(data)
    if not keeps:
        return None
    spreads = []
    for keep in keeps:
        values = [point.accuracy or 0.0 for point in compared(data, keep)]
        spreads.append(max(values) - min(values))
    return Finding(
        tone="bad",
        lead=f"No two methods can be told apart at {ranged(keeps, data.keeps)}.",
        text=f"Their accuracies lie within {points(max(spreads))} of each other. A result at "
        f"{'this ratio' if len(keeps) == 1 else 'these ratios'} says little about any of them.",
    )


def against_random(data: TradeoffData) -> Finding | None:
    """The subject beside random tokens."""
    own = data.subject
    better, level, worse = (data.verdicts.keeps(own, RANDOM, verdict) for verdict in ("better", "level", "worse"))
    if own == RANDOM or not (better or level or worse):
        return None
    rest: list[tuple[Verdict, list[float]]] = [("level", level), ("worse", worse)]
    if better:
        lead, tone = relation(data, own, "better", RANDOM, ranged(better, data.keeps)), "good"
    elif worse:
        lead, tone, rest = relation(data, own, "worse", RANDOM, ranged(worse, data.keeps)), "bad", [("level", level)]
    else:
        lead, tone, rest = relation(data, own, "level", RANDOM, ranged(level, data.keeps)), "bad", []
    lines = [line for keep in better or worse or level if (line := data.verdicts.of(own, keep, RANDOM)) is not None]
    told = [capital("; ".join(gap(data, line) for line in lines)) + "."]
    told += [relation(data, own, verdict, RANDOM, ranged(keeps, data.keeps)) for verdict, keeps in rest if keeps]
    return Finding(tone="good" if tone == "good" else "bad", lead=lead, text=" ".join(told))


def against_free(data: TradeoffData) -> Finding | None:
    """The subject beside the best training-free method of those in the record, ratio by ratio."""
    own = data.subject
    if role(own) == "free":
        return None
    by_verdict: dict[Verdict, list[Difference]] = {"better": [], "worse": [], "level": []}
    for keep in data.pruned:
        free = data.best_free(keep)
        apart = None if free is None else data.verdicts.of(own, keep, free.method)
        if apart is not None:
            by_verdict[apart.verdict].append(apart)
    better, worse, level = (by_verdict[verdict] for verdict in ("better", "worse", "level"))
    if not (better or worse or level):
        return None
    if worse:
        lead = f"{capital(phrase(own))} is worse than {BEST_FREE} at {_keeps(data, worse)}."
    elif better:
        lead = f"{capital(phrase(own))} beats {BEST_FREE} at {_keeps(data, better)}."
    else:
        lead = f"{capital(phrase(own))} can\u2019t be told from {BEST_FREE} at {_keeps(data, level)}."
    told = []
    if worse and better:
        told.append(f"It beats it at {_keeps(data, better)}.")
    if level and (worse or better):
        told.append(f"The two can\u2019t be told apart at {_keeps(data, level)}.")
    for apart in sorted((*worse, *better, *level), key=lambda one: -one.keep):
        also = tied(data, apart.keep)
        told.append(f"At {share(apart.keep)} it is {phrase(apart.against)}{also}: {_both(data, apart)}.")
    return Finding(tone="bad" if worse else "good" if better else "plain", lead=lead, text=" ".join(told))


def _keeps(data: TradeoffData, lines: Sequence[Difference]) -> str:
    return ranged([line.keep for line in lines], data.keeps)


def _both(data: TradeoffData, apart: Difference) -> str:
    """ "0.886, the learned saliency 0.735 (−15.1 (−17.8 to −12.5) points)" """
    own, other = (data.value(name, apart.keep, "accuracy") for name in (apart.method, apart.against))
    if own is None or other is None:
        return f"{apart.written} points"
    return f"{score(other)}, {phrase(apart.method)} {score(own)} [{apart.written}]"


def beside_random(data: TradeoffData) -> Finding | None:
    """Every method but controls and oracles beside random tokens."""
    names = [name for name in data.methods if role(name) in ("learned", "free") and name != RANDOM]
    level = {name: data.verdicts.keeps(name, RANDOM, "level") for name in names}
    worse = {name: data.verdicts.keeps(name, RANDOM, "worse") for name in names}
    better = {name: data.verdicts.keeps(name, RANDOM, "better") for name in names}
    names = [name for name in names if level[name] or worse[name] or better[name]]
    if not names or names == [data.subject]:
        return None  # `against_random` has said it
    parts = []
    for found, said in ((level, "Not told from random tokens"), (worse, "Worse than random tokens")):
        if any(found[name] for name in names):
            parts.append(f"{said}: {_by_method(data, {name: found[name] for name in names if found[name]})}.")
    always = [name for name in names if not level[name] and not worse[name]]
    everywhere = [name for name in always if better[name] == data.pruned]
    some = [f"{phrase(name)} at {ranged(better[name], data.keeps)}" for name in names if name not in everywhere
            and better[name]]  # fmt: skip
    if everywhere:
        parts.append(f"Better at every ratio: {', '.join(phrase(name) for name in everywhere)}.")
    if some:
        parts.append(f"Better in part: {'; '.join(some)}.")
    if len(always) == len(names):
        least = min((data.verdicts.of(name, keep, RANDOM) for name in names for keep in better[name]),
                    key=lambda line: line.low if line else 1.0)  # fmt: skip
        assert least is not None
        parts.append(f"The closest is {phrase(least.method)} at {share(least.keep)}, by {least.written} points.")
        return Finding(tone="good", lead="Every method beats random tokens wherever they were compared.",
                       text=" ".join(parts))  # fmt: skip
    return Finding(tone="bad", lead="Not every method beats random tokens at every ratio.", text=" ".join(parts))


def _by_method(data: TradeoffData, found: dict[str, list[float]]) -> str:
    parts = []
    for method, keeps in found.items():
        lines = [line for keep in keeps if (line := data.verdicts.of(method, keep, RANDOM)) is not None]
        parts.append(f"{phrase(method)} at {', '.join(f'{share(line.keep)} [{line.written}]' for line in lines)}")
    return "; ".join(parts)


def controls(data: TradeoffData) -> Finding | None:
    """The scorers that should not work, beside random tokens."""
    names = [name for name in data.of_role("control") if _known(data, name)]
    if not names:
        return None
    told = []
    order: tuple[Verdict, ...] = ("better", "worse", "level")
    for name in names:
        found = [(verdict, keeps) for verdict in order if (keeps := data.verdicts.keeps(name, RANDOM, verdict))]
        said = [f"{VERBS[verdict]} random tokens at {ranged(keeps, data.keeps)}" for verdict, keeps in found]
        told.append(f"{capital(phrase(name))} {listed(said)}.")
        lucky = _lucky(data, name)
        if lucky:
            told.append(f"One of its seeds alone is better at {ranged(lucky, data.keeps)}.")
    working = [name for name in names if data.verdicts.keeps(name, RANDOM, "better") or _lucky(data, name)]
    if not working:
        return Finding(tone="good", lead="No control beats random tokens.", text=" ".join(told))
    keeps = [keep for name in working for keep in (*data.verdicts.keeps(name, RANDOM, "better"), *_lucky(data, name))]
    told.append(_where_a_control_looks(data, working[0], min(keeps)))
    told.append(
        "Part of a scorer's gain may then be due to its form, and only what it gains over its control to what it was "
        "taught."
    )
    lead = "A control that should know nothing beats random tokens."
    return Finding(tone="bad", lead=lead, text=" ".join(part for part in told if part))


def _known(data: TradeoffData, name: str) -> bool:
    return any(data.verdicts.verdict(name, keep, RANDOM) is not None for keep in data.pruned)


def _lucky(data: TradeoffData, method: str) -> list[float]:
    """The ratios at which a seed alone beats random tokens though the mean of all seeds does not."""
    found = []
    for line in data.record.extra.get("differences") or ():
        if not isinstance(line, Mapping) or (line.get("method"), line.get("against")) != (method, RANDOM):
            continue
        keep = finite(line.get("keep"))
        lows = [finite(one.get("low")) for one in line.get("by_seed") or () if isinstance(one, Mapping)]
        lucky = any(low is not None and low > 0 for low in lows)
        if keep is not None and lucky and data.verdicts.verdict(method, keep, RANDOM) in ("level", "worse"):
            found.append(keep)
    return sorted(found, reverse=True)


def _where_a_control_looks(data: TradeoffData, method: str, keep: float) -> str:
    """Why an untaught scorer may do better than chance: where what it keeps lies, seed by seed."""
    point = data.at(method, keep)
    shares = () if point is None else point.each.get("item_share", ())
    chance = data.value(RANDOM, keep, "item_share")
    if not shares or chance is None:
        return ""
    spread = share(shares[0]) if len(shares) == 1 else f"{share(min(shares))} to {share(max(shares))} by its seed"
    text = f"At {share(keep)}, {spread} of what {phrase(method)} keeps lies on items; of random tokens {share(chance)}"
    if max(shares) > 2 * chance:
        text += ": items stand out in these features, and a function that nobody taught may put them first or last"
    return text + "."


def oracle(data: TradeoffData) -> Finding | None:
    """The oracle of all items beside the best method; it is a reference and no bound."""
    if _ORACLE not in data.methods:
        return None
    by_verdict: dict[Verdict, list[Difference]] = {"better": [], "worse": [], "level": []}
    for keep in data.pruned:
        best = max(compared(data, keep), key=lambda point: point.accuracy or 0.0, default=None)
        apart = None if best is None else data.verdicts.of(_ORACLE, keep, best.method)
        if apart is not None:
            by_verdict[apart.verdict].append(apart)
    lines = sorted((line for found in by_verdict.values() for line in found), key=lambda line: -line.keep)
    if not lines:
        return None
    best_name = "the best method of those measured here"
    order: tuple[Verdict, ...] = ("worse", "better", "level")
    said = [
        f"{phrase(_ORACLE)} {VERBS[verdict]} {best_name} at {_keeps(data, by_verdict[verdict])}"
        for verdict in order
        if by_verdict[verdict]
    ]
    first, *others = said
    told = [capital(other) + "." for other in others]
    told += [f"At {share(line.keep)} that is {phrase(line.against)}: {_both(data, line)}." for line in lines]
    told.append("The oracle spends its tokens on the items. It is a reference and no bound: other choices may be read "
                "better.")  # fmt: skip
    return Finding(tone="plain", lead=capital(first) + ".", text=" ".join([*told, *_asked(data)]))


def _asked(data: TradeoffData) -> list[str]:
    """The oracle of the items asked about, which has questions of its own."""
    name = "oracle-question"
    full, count = data.setting("ceiling_full_accuracy"), data.setting("ceiling_pictures")
    values = [
        f"{score(value)} at {share(keep)}"
        for keep in data.pruned
        if (value := data.value(name, keep, "accuracy")) is not None
    ]
    if not values:
        return []
    where = "" if full is None else f", where all tokens answer {score(full)}"
    pictures = "on its own questions" if count is None else f"on the first {count:.0f} pictures"
    return [f"{capital(phrase(name))} answers {listed(values)}, {pictures}{where}."]


def better_than_full(data: TradeoffData) -> Finding | None:
    """Ratios at which leaving tokens out raised the accuracy, on the same questions."""
    found = [
        f"{phrase(method)} at {ranged(keeps, data.keeps)}"
        for method in data.methods
        if (keeps := data.verdicts.keeps(method, ALL_TOKENS, "better"))
    ]
    if not found:
        return None
    text = f"{capital(listed(found))}: what is left out was in the way."
    return Finding(tone="plain", lead="Fewer tokens can be better than all of them.", text=text)
