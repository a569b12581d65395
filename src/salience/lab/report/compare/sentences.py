"""A comparison in words: what the second direction is worth, where lengths cross, what held and what did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salience.lab.report.compare.compare_data import Against, CompareData
from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.words import MINUS, TIMES, capital, finite, listed, points, score, times

_LEVEL = 0.05  # of the corrected p
_APART_SEEDS = "more seeds than compared"
_SAME = 0.05  # of speed or memory: as fast, as large
_NEAR = 0.05  # above the majority line: too near to it to speak of learning
_CONTROL = 0.03  # as near as a control must come to it


def headline(data: CompareData) -> str:
    """Gain from the second direction, where that was compared and learnt; else the task.

    A quick run and one on a busy machine make none.
    """
    neutral = f"Sequence models under identical training: {data.task}"
    if data.reliability.title is not None:
        return f"{data.reliability.title}: {neutral[0].lower()}{neutral[1:]}"
    found = []
    for causal, both in data.pairs:
        line = data.test(both, causal)
        if line is not None and not (_near(data, causal) and _near(data, both)):
            found.append(float(line["difference"]) if _apart(line) else 0.0)
    if not found:
        return neutral
    if not any(found):
        return f"Reading both ways makes no measurable difference on {data.task}"
    if all(found) and min(found) * max(found) > 0:  # of several pairs, all to the same side
        worth = listed(list(dict.fromkeys(points(each) for each in found)))
        return f"Reading both ways {'gains' if found[0] > 0 else 'loses'} {worth} on {data.task}"
    return f"What reading both ways is worth on {data.task} depends on the model"


def _near(data: CompareData, model: str) -> bool:
    """Whether a model ends near the majority line."""
    value, majority = data.last(model), data.setting("majority_accuracy")
    return value is not None and majority is not None and value < majority + _NEAR


def answer(data: CompareData) -> str:
    """Every model's last accuracy, best first, beside what needs no looking; nothing of a quick run."""
    if data.reliability.quick:
        return ""
    known = [(value, model) for model in data.models if (value := data.last(model)) is not None]
    if not known:
        return "No model came to the end of its training."
    told = ", ".join(f"{model} {score(value)}" for value, model in sorted(known, reverse=True))
    line = data.setting("majority_accuracy")
    beside = "" if line is None else f" Always saying the commonest answer scores {score(line)}."
    return f"Accuracy after the last epoch: {told}.{beside}"


def epochs_title(data: CompareData, *, pair: bool) -> str:
    """The title of the figures by epoch."""
    both = ", causal and non-causal" if pair else ", all models"
    count = data.config.get("epochs")
    return f"Training loss and test accuracy{both if data.pairs else ''}" + (f", {count} epochs" if count else "")


def pair_caption(data: CompareData) -> str:
    """Who is ahead at the end, in loss and in accuracy."""
    told = []
    for causal, both in data.pairs:
        ends = [data.epochs(model, "train_loss") for model in (both, causal)]
        line = data.test(both, causal)
        if data.reliability.quick:
            told.append(f"Causal: {causal}; non-causal: {both}.")
        if line is None or not all(ends) or data.reliability.quick:
            continue
        losses = [each[max(each)].mean for each in ends]
        ended = f"training ends at a loss of {losses[0]:.2f} nats with {both}, {losses[1]:.2f} with {causal}"
        told.append(f"Causal: {causal}; non-causal: {both}. {capital(ended)}. {tested(line)}")
    return " ".join(told)


def tests(data: CompareData) -> list[str]:
    """Every pair in words; none of a quick run."""
    return [] if data.reliability.quick else [tested(_with_seeds(data, line)) for line in data.lines("tests")]


def _with_seeds(data: CompareData, line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The line, marked where a model has more seeds than were compared: its mean accuracy is then of others, too."""
    compared = finite(line.get("seeds"))
    most = max(finite(data.final.get(line[side], {}).get("seeds")) or 0 for side in ("first", "second"))
    return line if compared is None or most <= compared else {**line, _APART_SEEDS: True}


def tested(line: Mapping[str, Any]) -> str:
    """A pair in words: the better one, by how much, and whether that is more than chance."""
    apart, p = float(line["difference"]), float(line["p_holm"])
    first, second = (line["first"], line["second"]) if apart >= 0 else (line["second"], line["first"])
    sign = 100 if apart >= 0 else -100
    low, high = sorted(sign * float(line[end]) for end in ("low", "high"))
    chance = "p below 0.001" if p < 0.001 else f"p = {p:.3f}"
    span = f"95% interval {_signed(low)} to {_signed(high)}, {chance}"
    if not _apart(line):
        return f"{first} and {second} can\u2019t be told apart: {points(apart)} ({span})."
    agree = "" if line["seeds_agree"] else " Not every seed agrees."
    if _APART_SEEDS in line:
        agree += f" Compared on {line['seeds']} of the seeds."
    return f"{first} is ahead of {second} by {points(apart)} ({span}).{agree}"


def _apart(line: Mapping[str, Any]) -> bool:
    """More than chance over the test examples and over the seeds, which the test pools and the interval draws."""
    return float(line["p_holm"]) < _LEVEL and not float(line["low"]) <= 0 <= float(line["high"])


def _signed(value: float) -> str:
    text = f"{abs(value):.1f}"
    return MINUS + text if value < 0 and text != "0.0" else text


def crossings(data: CompareData) -> list[str]:
    """Lengths from which each model beats causal attention in speed and in memory, if it does.

    Nothing of a quick run, and no speed of a busy machine.
    """
    if data.reliability.quick:
        return []
    timed = data.against("tokens_per_s") if data.reliability.times else []
    speed = [_crossing(each, "speed", "is {} as fast", 1) for each in timed]
    return speed + [_crossing(each, "memory", "takes {} the memory", -1) for each in data.against("peak_bytes")]


def _crossing(found: Against, what: str, at_end: str, sign: int) -> str:
    """sign: 1 where a larger ratio is better, -1 where a smaller one is."""
    first, second, lengths = found.first, found.second, list(found.ratios)
    ahead = [sign * (found.ratios[length] - 1) >= _SAME for length in lengths]
    last = found.ratios[lengths[-1]]
    ratio = times(last) if last >= 1 else f"{last:.2f}{TIMES}"
    end = f"at {lengths[-1]:,.0f} it {at_end.format(ratio)}"
    span = f"{lengths[0]:,.0f} to {lengths[-1]:,.0f} steps"
    if all(ahead):
        return f"{first} is ahead of {second} in {what} at every length measured, {span}; {end}."
    if not any(ahead):
        return f"{first} does not overtake {second} in {what} within the lengths measured, {span}; {end}."
    if not ahead[-1]:
        some = listed([f"{length:,.0f}" for length, yes in zip(lengths, ahead, strict=True) if yes])
        return f"{first} is ahead of {second} in {what} at {some} steps, but not beyond; {end}."
    start = max(at for at, yes in enumerate(ahead) if not yes)  # the last length where it is behind
    between = f"{lengths[start]:,.0f} and {lengths[start + 1]:,.0f} steps"
    return f"{first} overtakes {second} in {what} between {between}; {end}."


def controls(data: CompareData) -> list[Finding]:
    """The shuffled labels: passed where every model fell to what needs no looking. Nothing of a quick run."""
    lines = (data.setting("majority_accuracy"), data.setting("chance_accuracy"))
    blind = max((value for value in lines if value is not None), default=None)
    if blind is None or data.reliability.quick:
        return []
    held: list[str] = []
    leaking: list[str] = []
    for control in data.lines("control"):
        low, value = finite(control.get("accuracy_low")), finite(control.get("accuracy"))
        if value is None:
            continue
        fell = value < blind + _CONTROL or (low is not None and low <= blind)
        (held if fell else leaking).append(f"{control['model']} {score(value)}")
    if leaking:
        text = f"Trained on them, these stay above the majority line of {score(blind)}: {listed(leaking)}."
        text += f" Fallen to it: {listed(held)}." if held else ""
        return [Finding(tone="bad", lead="The control with shuffled labels fails: something leaks.", text=text)]
    if not held:
        return []
    text = f"Trained on them, nothing is learnt that holds on the test: {listed(held)} (majority {score(blind)})."
    return [Finding(tone="good", lead="The control with shuffled labels passes.", text=text)]


def cautions(data: CompareData) -> list[Finding]:
    """Findings on failures and caveats. Of a quick run only failures."""
    found = []
    for line in data.lines("diverged"):
        text = f"{line['model']}, seed {line['seed']}: {line['said']}"
        found.append(Finding(tone="bad", lead="A training diverged.", text=text))
    if data.reliability.quick:
        return found
    majority = data.setting("majority_accuracy")
    for model in data.models:
        value = data.last(model)
        if value is not None and majority is not None and _near(data, model):
            text = f"{score(value)} against {score(majority)} for always saying the commonest answer."
            lead = f"{model} ends within {points(_NEAR)} of the majority line."
            found.append(Finding(tone="bad", lead=lead, text=text))
    seeds = finite(data.config.get("seeds"))
    if seeds is not None and seeds < 2:
        found.append(Finding(tone="bad", lead="One seed.", text="Another may differ; no spread could be measured."))
    return found


def matched(data: CompareData) -> str:
    """How near the widths came to the number of parameters asked for; nothing where none was."""
    target = data.setting("parameters_target")
    known = [
        (count - target, count, line) for line in data.final.values()
        if target and (count := finite(line.get("parameters"))) is not None
    ]  # fmt: skip
    if not target or not known:
        return ""
    off, count, line = max(known, key=lambda each: abs(each[0]))
    told = f"{abs(off) / target:.1%} {'more' if off > 0 else 'fewer'}" if off else "none more or fewer"
    return (
        f"Each width is the one that comes nearest to {target:,.0f} parameters; furthest off is {line['model']} at "
        f"width {line.get('d_model')} with {count:,.0f}, {told}."
    )
