"""Findings about which method is better, all of them from the table of verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from salience.core.result_tables import ALL_TOKENS, AccuracyDifference
from salience.lab.report.kit.finding import Finding, Tone
from salience.lab.report.kit.method_styles import phrase, role, title
from salience.lab.report.kit.words import capital, listed, points, ranged, score, share
from salience.lab.report.tradeoff.tradeoff_data import Point, TradeoffData
from salience.lab.report.tradeoff.verdict_words import BEST, BEST_FREE, VERBS, compared, interval, relation
from salience.lab.report.tradeoff.verdicts import RANDOM, Verdict, verdict_of

ByVerdict = dict[Verdict, list[AccuracyDifference]]


def _by_verdict(lines: Iterable[AccuracyDifference | None], first: Verdict = "better") -> ByVerdict:
    """The lines of each verdict, those of `first` in front."""
    found: ByVerdict = {first: [], "better": [], "worse": [], "level": []}
    for line in lines:
        if line is not None:
            found[verdict_of(line)].append(line)
    return found


def _keeps(lines: Sequence[AccuracyDifference]) -> list[float]:
    return [line.keep for line in lines]


def alike_keeps(data: TradeoffData) -> list[float]:
    """The ratios below 1 at which every two competing methods were compared and none is better than another."""
    found = []
    for keep in data.pruned:
        names = [point.method for point in data.competing(keep, "learned", "free")]
        pairs = [(one, other) for number, one in enumerate(names) for other in names[:number]]
        if pairs and all(data.verdicts.verdict(one, keep, other) == "level" for one, other in pairs):
            found.append(keep)
    return found


def alike(data: TradeoffData) -> Finding | None:
    """The ratios at which a result says little about any method."""
    keeps = alike_keeps(data)
    if not keeps:
        return None
    each = [[point.accuracy or 0.0 for point in data.competing(keep, "learned", "free")] for keep in keeps]
    return Finding(
        tone="bad",
        lead=f"No method is measurably better than another at {ranged(keeps, data.keeps)}.",
        text=f"Their accuracies lie within {points(max(max(values) - min(values) for values in each))} of each other. "
        f"A result at {'this ratio' if len(keeps) == 1 else 'these ratios'} says little about any of them.",
    )


def against_random(data: TradeoffData) -> Finding | None:
    """The subject beside random tokens."""
    own = data.subject
    found = _by_verdict(data.verdicts.of(own, keep, RANDOM) for keep in data.pruned)
    first = next((verdict for verdict, lines in found.items() if lines), None)
    if own == RANDOM or first is None:
        return None
    told = [relation(data, own, verdict, RANDOM, _keeps(lines)) for verdict, lines in reversed(found.items())
             if verdict != first and lines]  # fmt: skip
    lead = relation(data, own, first, RANDOM, _keeps(found[first]))
    numbers = compared(data, _all(found), title(own), "random tokens")
    return Finding(tone="good" if first == "better" else "bad", lead=lead, text=" ".join(told), numbers=numbers)


def against_free(data: TradeoffData) -> Finding | None:
    """The subject beside the best training-free method of those in the record, ratio by ratio."""
    own = data.subject
    best = [] if role(own) == "free" else [free for keep in data.pruned if (free := data.best_free(keep)) is not None]
    found = _by_verdict((data.verdicts.of(own, free.keep, free.method) for free in best), "worse")
    first = next((verdict for verdict, lines in found.items() if lines), None)
    if first is None:
        return None
    told = []
    if first == "worse" and found["better"]:
        told.append(f"It is better at {ranged(_keeps(found['better']), data.keeps)}.")
    if first != "level" and found["level"]:
        told.append(f"The two are not measurably different at {ranged(_keeps(found['level']), data.keeps)}.")
    lead = relation(data, own, first, BEST_FREE, _keeps(found[first]))
    tones: dict[Verdict, Tone] = {"worse": "bad", "better": "good", "level": "plain"}
    numbers = compared(data, _all(found), title(own), "best training-free method", named=True)
    return Finding(tone=tones[first], lead=lead, text=" ".join(told), numbers=numbers)


def _all(found: ByVerdict) -> list[AccuracyDifference]:
    return [line for lines in found.values() for line in lines]


def beside_random(data: TradeoffData) -> Finding | None:
    """Every method but controls and oracles beside random tokens."""
    each = {
        name: _by_verdict(data.verdicts.of(name, keep, RANDOM) for keep in data.pruned)
        for name in data.of_role("learned", "free")
        if name != RANDOM
    }
    each = {name: found for name, found in each.items() if any(found.values())}
    if not each or list(each) == [data.subject]:
        return None  # `against_random` has said it
    parts: list[str] = []
    lists: tuple[tuple[Verdict, str], ...] = (
        ("level", "Not measurably different from random tokens"), ("worse", "Worse than random tokens"),
    )  # fmt: skip
    for verdict, said in lists:
        named = [
            f"{phrase(name)} at {', '.join(f'{share(line.keep)} [{interval(line)}]' for line in found[verdict])}"
            for name, found in each.items()
            if found[verdict]
        ]
        parts += [f"{said}: {'; '.join(named)}."] if named else []
    everywhere = [name for name, found in each.items() if _keeps(found["better"]) == data.pruned]
    some = [f"{phrase(name)} at {ranged(_keeps(found['better']), data.keeps)}" for name, found in each.items()
            if found["better"] and name not in everywhere]  # fmt: skip
    parts += [f"Better at every ratio: {', '.join(phrase(name) for name in everywhere)}."] if everywhere else []
    parts += [f"Better at some ratios: {'; '.join(some)}."] if some else []
    if any(found["level"] or found["worse"] for found in each.values()):
        return Finding(tone="bad", lead="Not every method beats random tokens at every ratio.", text=" ".join(parts))
    least = min((line for found in each.values() for line in found["better"]), key=lambda line: line.low)
    parts.append(f"The closest is {phrase(least.method)} at {share(least.keep)}, by {interval(least)} points.")
    return Finding(
        tone="good", lead="Every method beats random tokens wherever they were compared.", text=" ".join(parts)
    )


def controls(data: TradeoffData) -> Finding | None:
    """The scorers that should not work, beside random tokens."""
    told: list[str] = []
    working: dict[str, float] = {}
    for name in data.of_role("control"):
        found = _by_verdict(data.verdicts.of(name, keep, RANDOM) for keep in data.pruned)
        said = [f"{VERBS[verdict]} random tokens at {ranged(_keeps(lines), data.keeps)}" for verdict, lines in
                found.items() if lines]  # fmt: skip
        if not said:
            continue
        lucky = [line.keep for line in (*found["level"], *found["worse"]) if any(one.low > 0 for one in line.by_seed)]
        told.append(f"{capital(phrase(name))} {listed(said)}.")
        told += [f"One of its seeds alone is better at {ranged(lucky, data.keeps)}."] if lucky else []
        if found["better"] or lucky:
            working[name] = min(*_keeps(found["better"]), *lucky, 1.0)
    if not told:
        return None
    if not working:
        return Finding(tone="good", lead="No control beats random tokens.", text=" ".join(told))
    told.append(_control_on_items(data, next(iter(working)), min(working.values())))
    told.append(
        "Part of a scorer\u2019s gain may therefore come from its form. Only its gain over the control comes from "
        "training."
    )
    lead = "A control beats random tokens, although it should know nothing."
    return Finding(tone="bad", lead=lead, text=" ".join(part for part in told if part))


def _control_on_items(data: TradeoffData, method: str, keep: float) -> str:
    """Why an untrained scorer may beat chance: the share of its tokens that lies on items, by seed."""
    point, chance = data.at(method, keep), data.value(RANDOM, keep, "item_share")
    shares = () if point is None else point.each.get("item_share", ())
    if not shares or chance is None:
        return ""
    spread = share(shares[0]) if len(shares) == 1 else f"{share(min(shares))} to {share(max(shares))} (by seed)"
    text = (
        f"At {share(keep)}, {spread} of the tokens that {phrase(method)} keeps lie on items; of random tokens "
        f"{share(chance)}."
    )
    if max(shares) > 2 * chance:
        text += " Items stand out in these features, so an untrained function may rank them first or last."
    return text


def oracle(data: TradeoffData) -> Finding | None:
    """The oracle of all items beside the best method; it is a reference and no bound."""
    best: list[Point] = [p for keep in data.pruned if (p := data.best(keep, "learned", "free")) is not None]
    found = _by_verdict((data.verdicts.of("oracle", point.keep, point.method) for point in best), "worse")
    said = [relation(data, "oracle", verdict, BEST, _keeps(lines)) for verdict, lines in found.items() if lines]
    if not said:
        return None
    told = said[1:]
    told.append(
        "The oracle spends its tokens on the items. It is a reference, not an upper bound: the model may read another "
        "choice of tokens better."
    )
    numbers = compared(data, _all(found), title("oracle"), "best method", named=True)
    return Finding(tone="plain", lead=said[0], text=" ".join([*told, *_question_oracle(data)]), numbers=numbers)


def _question_oracle(data: TradeoffData) -> list[str]:
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
    where = "" if full is None else f", where all tokens reach {score(full)}"
    pictures = "on its own questions" if count is None else f"on the first {count:.0f} pictures"
    return [f"{capital(phrase(name))} reaches {listed(values)}, {pictures}{where}."]


def better_than_full(data: TradeoffData) -> Finding | None:
    """Ratios at which leaving tokens out raised the accuracy, on the same questions."""
    found = [
        f"{phrase(method)} at {ranged(keeps, data.keeps)}"
        for method in data.methods
        if (keeps := data.verdicts.keeps(method, ALL_TOKENS, "better"))
    ]
    if not found:
        return None
    return Finding(
        tone="plain",
        lead="Fewer tokens can be better than all of them.",
        text=f"Better than all tokens: {listed(found)}.",
    )
