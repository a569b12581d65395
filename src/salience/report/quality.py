"""What was found about the answers: against random, against the best, by kind of question, by the probe."""

from collections.abc import Callable

from salience.report.answer import BROKEN, telling_keep
from salience.report.differences import differences, unproven
from salience.report.finding import Finding
from salience.report.methods import phrase, role
from salience.report.series import LEVEL, Point, View, ahead, kind_column
from salience.report.words import capital, listed, lost, points, ranged, score, share, signed_points


def compared(view: View, keep: float) -> list[Point]:
    """The points of the methods that compete at a ratio: learned and training-free, no ceilings, no controls."""
    names = [method for method in view.methods if role(method) in ("learned", "free")]
    return [point for name in names if (point := view.at(name, keep)) is not None and point.accuracy is not None]


def alike_keeps(view: View) -> list[float]:
    """The ratios below 1 at which the best competing method is not clearly ahead of the worst."""
    found = []
    for keep in view.pruned:
        ranked = sorted(compared(view, keep), key=lambda point: point.accuracy or 0.0)
        if len(ranked) > 1 and not ahead(ranked[-1], ranked[0]):
            found.append(keep)
    return found


def alike(view: View) -> Finding | None:
    keeps = alike_keeps(view)
    if not keeps:
        return None
    spread = 0.0
    for keep in keeps:
        values = [point.accuracy or 0.0 for point in compared(view, keep)]
        spread = max(spread, max(values) - min(values))
    names = " Random tokens are among them." if "random" in view.methods else ""
    return Finding(
        tone="bad",
        lead=f"Everything is alike at {ranged(keeps, view.keeps)}.",
        text=f"The methods lie within {points(spread)} of each other and their intervals overlap.{names} "
        "A result at these ratios says little about any of them.",
    )


def against_random(view: View) -> Finding | None:
    own, keeps = view.subject, [keep for keep in view.pruned if view.at("random", keep)]
    if own == "random" or not keeps:
        return None
    won = [keep for keep in keeps if ahead(view.at(own, keep), view.at("random", keep))]
    if not won:
        return Finding(
            tone="bad",
            lead=f"{capital(phrase(own))} is not clearly better than random tokens at any ratio.",
            text=_gaps(view, own, "random", keeps),
        )
    rest = [keep for keep in keeps if keep not in won]
    tail = f" At {ranged(rest, view.keeps)} it is not clearly ahead." if rest else ""
    return Finding(
        tone="good",
        lead=f"{capital(phrase(own))} beats random tokens at {ranged(won, view.keeps)}.",
        text=_gaps(view, own, "random", won) + tail,
    )


def _gaps(view: View, first: str, second: str, keeps: list[float]) -> str:
    """'0.82 against 0.62 at 10%, 0.76 against 0.46 at 5%.'"""
    parts = []
    for keep in keeps:
        a, b = view.value(first, keep, "accuracy"), view.value(second, keep, "accuracy")
        if a is not None and b is not None:
            parts.append(f"{score(a)} against {score(b)} at {share(keep)}")
    return listed(parts) + "." if parts else ""


def against_free(view: View) -> Finding | None:
    own = view.subject
    if role(own) == "free":
        return None
    won: list[float] = []
    lost: list[float] = []
    level: list[float] = []
    for keep in view.pruned:
        mine, free = view.at(own, keep), view.best_free(keep)
        if mine is None or free is None or mine.accuracy is None:
            continue
        (won if ahead(mine, free) else lost if ahead(free, mine) else level).append(keep)
    if not (won or lost or level):
        return None
    worst = telling_keep(view) if not (won or lost) else (lost or won)[-1]
    free, mine = (view.best_free(worst) if worst else None), view.at(own, worst)
    if free is None or mine is None or mine.accuracy is None or free.accuracy is None:
        return None
    detail = f"At {share(free.keep)} it answers {score(mine.accuracy)}, {phrase(free.method)} {score(free.accuracy)}."
    if level:
        detail += f" At {ranged(level, view.keeps)} the two are level."
    if lost:
        also = f" It is ahead at {ranged(won, view.keeps)}." if won else ""
        return Finding(
            tone="bad",
            lead=f"{capital(phrase(own))} does not beat the best training-free method at {ranged(lost, view.keeps)}.",
            text=detail + also,
        )
    if won:
        lead = f"{capital(phrase(own))} beats the best training-free method at {ranged(won, view.keeps)}."
        return Finding(tone="good", lead=lead, text=detail)
    lead = f"{capital(phrase(own))} is nowhere clearly better than the best training-free method."
    return Finding(tone="bad", lead=lead, text=detail)


def others_against_random(view: View) -> Finding | None:
    """The methods, subject and controls apart, that are no better than random at a ratio where methods differ."""
    if differences(view):
        return unproven(view)  # question by question, which tells more than two intervals
    open_keeps = [keep for keep in view.pruned if keep not in alike_keeps(view) and view.at("random", keep)]
    failing = []
    for method in view.methods:
        if method in (view.subject, "random") or role(method) == "control":
            continue
        known = [keep for keep in open_keeps if view.at(method, keep)]
        keeps = [keep for keep in known if not ahead(view.at(method, keep), view.at("random", keep))]
        if keeps:
            failing.append(f"{phrase(method)} at {ranged(keeps, view.keeps)}")
    if not failing:
        return None
    return Finding(
        tone="bad",
        lead="Not every method beats random tokens.",
        text=f"Not clearly ahead of them: {'; '.join(failing)} (their intervals overlap).",
    )


def _some_seed_ahead(control: Point | None, random: Point | None) -> bool:
    """Whether the control, or one of its seeds alone, is clearly above random: the seeds' mean can hide a lucky one."""
    lows = control.each.get("accuracy_low", ()) if control else ()
    lucky = random is not None and random.high is not None and max(lows, default=0.0) > random.high
    return ahead(control, random) or lucky


def _where_a_control_looks(view: View, method: str, keep: float) -> str:
    """Why an untaught scorer may do better than chance: where what it keeps lies, seed by seed."""
    point = view.at(method, keep)
    shares = () if point is None else point.each.get("item_share", ())
    chance = view.value("random", keep, "item_share")
    if not shares or chance is None:
        return ""
    spread = share(shares[0]) if len(shares) == 1 else f"{share(min(shares))} to {share(max(shares))} by its seed"
    text = f"At {share(keep)}, {spread} of what {phrase(method)} keeps lies on items; of random tokens {share(chance)}"
    if max(shares) > 2 * chance:
        text += ": items stand out in these features, and a function that nobody taught may put them first or last"
    return text + ". "


def controls(view: View) -> Finding | None:
    """The scorers that should not work, beside random."""
    names = view.of_role("control")
    if not names or "random" not in view.methods:
        return None
    better, why = [], ""
    for method in names:
        keeps = [keep for keep in view.pruned if _some_seed_ahead(view.at(method, keep), view.at("random", keep))]
        if keeps:
            better.append(f"{phrase(method)} at {ranged(keeps, view.keeps)}")
            why = why or _where_a_control_looks(view, method, keeps[-1])
    if better:
        return Finding(
            tone="bad",
            lead="A control that should know nothing beats random tokens.",
            text=f"{capital(listed(better))}, with at least one seed. {why}Part of a scorer's gain may then be due to "
            "its form, and only what it gains over its control to what it was taught.",
        )
    return Finding(
        tone="good",
        lead="The controls know nothing, as they should.",
        text=f"{capital(listed([phrase(name) for name in names]))} {'are' if len(names) > 1 else 'is'} at no ratio "
        "clearly better than random tokens.",
    )


def breaking_point(view: View) -> Finding | None:
    """The largest ratio at which even the best training-free method has lost ten points."""
    full = view.full("accuracy")
    if full is None or not view.of_role("free"):
        return None
    least: float | None = None
    for keep in view.pruned:
        free = view.best_free(keep)
        if free is None or free.accuracy is None:
            continue
        least = full - free.accuracy
        if least >= BROKEN:
            own = view.value(view.subject, keep, "accuracy")
            beside = (
                ""
                if own is None or role(view.subject) == "free"
                else f" {capital(phrase(view.subject))} has {score(own)} there."
            )
            return Finding(
                tone="plain",
                lead=f"At {share(keep)} the best training-free method has lost {points(least)}.",
                text=f"{capital(phrase(free.method))} falls from {score(full)} to {score(free.accuracy)}: here the "
                f"choice of tokens is hard.{beside}",
            )
    if least is None:
        return None
    return Finding(
        tone="bad",
        lead="No ratio was small enough to break the best training-free method.",
        text=f"Even at {share(view.pruned[-1])} it loses {points(max(least, 0.0))} only, so that the comparison "
        "ends before it becomes hard.",
    )


def headroom(view: View) -> Finding | None:
    """How far a ceiling is above everything that competes."""
    keep, ceilings = telling_keep(view), view.of_role("ceiling")
    if keep is None or not ceilings:
        return None
    top = (
        "oracle" if "oracle" in ceilings else max(ceilings, key=lambda name: view.value(name, keep, "accuracy") or 0.0)
    )
    best = max(compared(view, keep), key=lambda point: point.accuracy or 0.0, default=None)
    value = view.value(top, keep, "accuracy")
    if value is None or best is None or best.accuracy is None:
        return None
    gap = value - best.accuracy
    if gap <= LEVEL:
        lead = f"At {share(keep)} there is little headroom without knowing the question."
    else:
        lead = f"At {share(keep)} there is room for {points(gap)} more."
    text = f"{capital(phrase(top))}, which is told where the items are, answers {score(value)}; the best real method, "
    text += f"{phrase(best.method)}, {score(best.accuracy)}."
    asked = view.value("oracle-question", keep, "accuracy")
    if asked is not None and top != "oracle-question":
        text += f" {capital(phrase('oracle-question'))} answers {score(asked)}."
    return Finding(tone="plain", lead=lead, text=text)


def suffering_kinds(view: View) -> Finding | None:
    """The kinds of question that pruning hurts most, where the choice of tokens matters."""
    keep, losses = telling_keep(view), []
    for kind in view.kinds:
        full, now = view.full(kind_column(kind)), view.value(view.subject, keep, kind_column(kind))
        if full is not None and now is not None:
            losses.append((full - now, kind, full, now))
    if keep is None or len(losses) < 2:
        return None
    losses.sort(reverse=True)
    loss, kind, full, now = losses[0]
    if loss <= LEVEL:
        lead = f"No kind of question suffers at {share(keep)}."
        return Finding(tone="good", lead=lead, text=f"The most that any loses is {points(max(loss, 0.0))}.")
    least = losses[-1]
    line = view.kind_line(kind, "majority_by_kind")
    under = (
        f" That is no better than always giving its commonest answer ({score(line)})."
        if line is not None and now <= line
        else ""
    )
    changed = f"loses {points(least[0])}" if least[0] > 0.0005 else "loses nothing"
    return Finding(
        tone="bad",
        lead=f"{capital(kind)} questions suffer most: {points(loss)} lost at {share(keep)}.",
        text=f"From {score(full)} to {score(now)}.{under} {capital(least[1])}, the least affected, {changed}.",
    )


def idle_kinds(view: View) -> Finding | None:
    """The kinds that the unpruned model itself hardly answers better than their majority answer."""
    weak = []
    for kind in view.kinds:
        full, line = view.full(kind_column(kind)), view.kind_line(kind, "majority_by_kind")
        if full is not None and line is not None and full - line < 0.05:
            weak.append(f"{kind} ({score(full)}; its commonest answer alone gives {score(line)})")
    if not weak:
        return None
    return Finding(
        tone="bad",
        lead="Even with all tokens the model hardly answers some kinds.",
        text=f"{capital(listed(weak))}: pruning has nothing to lose there.",
    )


def better_than_full(view: View) -> Finding | None:
    """Ratios at which leaving tokens out raised the accuracy clearly, on the same pictures."""
    found = []
    for method in view.methods:
        # The oracle of the items asked about is measured on fewer pictures, and these may be easier than all.
        own = view.setting("ceiling_full_accuracy") if method == "oracle-question" else None
        full = view.full("accuracy") if own is None else own
        keeps = [
            point.keep for point in view.line(method) if full and point.keep < 1 and point.low and point.low > full
        ]
        if keeps:
            found.append(f"{phrase(method)} at {ranged(keeps, view.keeps)}")
    if not found:
        return None
    text = f"{capital(listed(found))}: what is left out was in the way."
    return Finding(tone="plain", lead="Fewer tokens can be better than all of them.", text=text)


def probe_loss(view: View) -> Finding | None:
    """What the probe says, beside what the answers say."""
    keep = telling_keep(view)
    if keep is None:
        return None
    own, random = view.loss(view.subject, keep), view.loss("random", keep)
    full, answered = view.full("accuracy"), view.value(view.subject, keep, "accuracy")
    if own is None:
        return None
    beside = f"; with random tokens it {lost(random)}" if random is not None and view.subject != "random" else ""
    text = f"The probe reads {score(view.full('probe_accuracy') or 0.0)} from all tokens"
    if full is not None and answered is not None:
        text += f"; the answers themselves lose {points(max(full - answered, 0.0))}"
        apart = own - (full - answered)
        if abs(apart) > 0.05:
            text += f". The two disagree by {points(apart)}: the probe names items, the questions ask more than that"
    return Finding(tone="plain", lead=f"The probe {lost(own)} at {share(keep)}{beside}.", text=text + ".")


def other_picture(view: View) -> Finding | None:
    """Each question with another's picture: what is left is what the question tells by itself."""
    other, line = view.setting("control_other_picture_accuracy"), view.setting("question_only_accuracy")
    full = view.full("accuracy")
    if other is None or line is None or full is None or full < line + LEVEL:
        return None
    told = view.config.get("control_other_picture") or {}
    low, high = told.get("above_low"), told.get("above_high")
    text = f"Asked of other pictures, the questions are answered at {score(other)}; "
    text += f"the question alone gives {score(line)}"
    if low is not None and high is not None:
        text += f" (difference {signed_points(low)} to {signed_points(high)} points, 95% over pictures)"
        above = low > 0
    else:
        above = other > line + BROKEN / 2
    if not above:
        return Finding(tone="good", lead="The answers come from the picture.", text=text + ".")
    return Finding(tone="bad", lead="Not all of the accuracy comes from the picture.", text=text + ".")


#: In the order in which the page tells them.
QUALITY: tuple[Callable[[View], Finding | None], ...] = (
    alike,
    against_random,
    against_free,
    others_against_random,
    controls,
    breaking_point,
    headroom,
    suffering_kinds,
    idle_kinds,
    better_than_full,
    probe_loss,
    other_picture,
)
