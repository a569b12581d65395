"""A comparison in words: gain of the second direction, lengths at which lines cross, controls and cautions."""

from __future__ import annotations

from salience.core.result_tables import ModelDifference
from salience.lab.report.compare.compare_data import CompareData, LengthRatios, reverse
from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.words import TIMES, listed, points, points_apart, score, times

_LEVEL = 0.05  # of the corrected p
_SAME = 0.05  # of speed or memory: as fast, as large
_NEAR = 0.05  # above the majority line: too near to it to speak of learning
_CONTROL = 0.03  # as near as a control must come to it


def headline(data: CompareData) -> str:
    """Gain from the second direction, where that was compared and learnt; else the task.

    A quick run and a run on a busy machine have a title without a result.
    """
    neutral = f"Sequence models under identical training: {data.task}"
    if data.reliability.title is not None:
        return f"{data.reliability.title}: {neutral[0].lower()}{neutral[1:]}"
    found = []
    for causal, both in data.pairs:
        line = data.test(both, causal)
        if line is not None and not (_near(data, causal) and _near(data, both)):
            found.append(line.difference if _apart(line) else 0.0)
    if not found:
        return neutral
    if not any(found):
        return f"Reading both ways makes no measurable difference on {data.task}"
    if all(found) and min(found) * max(found) > 0:  # of several pairs, all to the same side
        gain = listed(list(dict.fromkeys(points(each) for each in found)))
        return f"Reading both ways {'gains' if found[0] > 0 else 'loses'} {gain} on {data.task}"
    return f"The gain of reading both ways on {data.task} depends on the model"


def _near(data: CompareData, model: str) -> bool:
    """Whether a model ends near the majority line."""
    value, majority = data.last(model), data.setting("majority_accuracy")
    return value is not None and majority is not None and value < majority + _NEAR


def summary(data: CompareData) -> str:
    """Every model's last accuracy, best first, beside the majority answer; nothing of a quick run."""
    if data.reliability.quick:
        return ""
    known = [(value, model) for model in data.models if (value := data.last(model)) is not None]
    if not known:
        return "No model finished its training."
    told = ", ".join(f"{model} {score(value)}" for value, model in sorted(known, reverse=True))
    line = data.setting("majority_accuracy")
    beside = "" if line is None else f" Always giving the commonest answer scores {score(line)}."
    return f"Accuracy after the last epoch: {told}.{beside}"


def epochs_title(data: CompareData, *, pair: bool) -> str:
    """The title of the figures by epoch."""
    both = ", causal and non-causal" if pair else ", all models"
    count = data.config.get("epochs")
    return f"Training loss and test accuracy{both if data.pairs else ''}" + (f", {count} epochs" if count else "")


def pair_caption(data: CompareData) -> str:
    """The models of each pair, and which of them is ahead at the end, in loss and in accuracy."""
    told = []
    for causal, both in data.pairs:
        ends = [list(data.epochs(model, "train_loss").values()) for model in (both, causal)]
        line = data.test(both, causal)
        named = f"Causal: {causal}; non-causal: {both}."
        if data.reliability.quick:
            told.append(named)
        elif line is not None and all(ends):
            losses = [each[-1].mean for each in ends]
            ended = f"Training ends at a loss of {losses[0]:.2f} nats with {both} and {losses[1]:.2f} with {causal}."
            told.append(f"{named} {ended} {tested(line)}")
    return " ".join(told)


def tests(data: CompareData) -> list[str]:
    """Every pair in words; none of a quick run. Says so where a model has more seeds than were compared."""
    told = []
    for line in data.record.tests if not data.reliability.quick else ():
        seeds = [data.final[name].seeds or 0 for name in (line.first, line.second) if name in data.final]
        fewer = _apart(line) and line.seeds is not None and max(seeds, default=0) > line.seeds
        told.append(tested(line) + (f" Compared on {line.seeds} of the seeds." if fewer else ""))
    return told


def tested(line: ModelDifference) -> str:
    """A pair in words: the better model, its lead, and whether that is more than chance."""
    line = line if line.difference >= 0 else reverse(line)
    first, second, lead = line.first, line.second, points(line.difference)
    chance = "p below 0.001" if line.p_holm < 0.001 else f"p = {line.p_holm:.3f}"
    span = f"95% interval {points_apart(line.low)} to {points_apart(line.high)}, {chance}"
    if not _apart(line):
        return f"{first} and {second} are not measurably different: {lead} ({span})."
    agree = "" if line.seeds_agree else " Not every seed agrees."
    return f"{first} is ahead of {second} by {lead} ({span}).{agree}"


def _apart(line: ModelDifference) -> bool:
    """More than chance over the test examples and over the seeds, which the test pools and the interval draws."""
    return line.p_holm < _LEVEL and not line.low <= 0 <= line.high


def crossings(data: CompareData) -> list[str]:
    """Lengths from which each model beats causal attention in speed and in memory, if it does.

    Nothing of a quick run, and no speed of a busy machine.
    """
    if data.reliability.quick:
        return []
    timed = data.ratios("tokens_per_s") if data.reliability.times else []
    speed = [_crossing(each, "speed", "is {} as fast", 1) for each in timed]
    return speed + [_crossing(each, "memory", "takes {} the memory", -1) for each in data.ratios("peak_bytes")]


def _crossing(found: LengthRatios, what: str, at_end: str, sign: int) -> str:
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
    """The shuffled labels: passed where every model fell to the baselines. Nothing of a quick run."""
    lines = (data.setting("majority_accuracy"), data.setting("chance_accuracy"))
    blind = max((value for value in lines if value is not None), default=None)
    if blind is None or data.reliability.quick:
        return []
    fell: list[str] = []
    leaking: list[str] = []
    for control in data.record.control:
        low, value = control.accuracy_low, control.accuracy
        if value is not None:
            passed = value < blind + _CONTROL or (low is not None and low <= blind)
            (fell if passed else leaking).append(f"{control.model} {score(value)}")
    if leaking:
        text = f"Trained on them, these models stay above the majority line of {score(blind)}: {listed(leaking)}."
        text += f" Fallen to it: {listed(fell)}." if fell else ""
        return [Finding(tone="bad", lead="The control with shuffled labels fails: something leaks.", text=text)]
    text = (
        f"Trained on them, no model learns anything that holds on the test: {listed(fell)} (majority {score(blind)})."
    )
    return [Finding(tone="good", lead="The control with shuffled labels passes.", text=text)] if fell else []


def cautions(data: CompareData) -> list[Finding]:
    """Failures and caveats. Of a quick run only failures."""
    found = [("A training diverged.", f"{line.model}, seed {line.seed}: {line.said}") for line in data.record.diverged]
    if not data.reliability.quick:
        majority, seeds = data.setting("majority_accuracy"), data.setting("seeds")
        for model in data.models:
            value = data.last(model)
            if value is not None and majority is not None and _near(data, model):
                lead = f"{model} ends within {points(_NEAR)} of the majority line."
                text = f"{score(value)}; always giving the commonest answer scores {score(majority)}."
                found.append((lead, text))
        if seeds is not None and seeds < 2:
            found.append(("One seed.", "Another seed may differ; the spread could not be measured."))
    return [Finding(tone="bad", lead=lead, text=text) for lead, text in found]


def matched(data: CompareData) -> str:
    """The largest distance of a width from the number of parameters asked for; empty where none was asked for."""
    target = data.setting("parameters_target")
    known = [(line.parameters, line) for line in data.final.values() if line.parameters is not None]
    if not target or not known:
        return ""
    count, line = max(known, key=lambda each: abs(each[0] - target))
    off = count - target
    told = f"{abs(off) / target:.1%} {'more' if off > 0 else 'fewer'}" if off else "none more or fewer"
    return (
        f"Each width is the one nearest to {target:,.0f} parameters. The furthest from it is {line.model} at width "
        f"{line.d_model} with {count:,.0f}, {told}."
    )
