"""Findings about time, arithmetic and memory, and measured speed-ups beside predicted ones."""

from __future__ import annotations

from dataclasses import dataclass

from salience.lab.report.kit import words
from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.words import byte_size, capital, listed, ranged, share, times, whole_share
from salience.lab.report.tradeoff.chosen_ratios import near_keep
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

#: A stage that takes this share of the time to the first token dominates it.
DOMINATES = 0.5
#: Measured and predicted speed-ups this near agree.
AGREE = 0.25
#: Selection may cost this share of the unpruned prefill.
CHEAP = 0.03


@dataclass(frozen=True, kw_only=True)
class TimedStage:
    """A time and the FLOPs that should predict its speed-up, with its palette role and marker."""

    name: str
    ms: str
    flops: str
    colour: str
    marker: str


PREFILL = TimedStage(name="prefill", ms="prefill_ms", flops="flops_llm", colour="blue", marker="o")
FIRST_TOKEN = TimedStage(name="first token", ms="first_token_ms", flops="flops_total", colour="orange", marker="s")


def predicted_speedups(data: TradeoffData, stage: TimedStage) -> list[tuple[float, float, float]]:
    """Return (keep, measured, predicted) of the subject at each ratio where both are known."""
    each = [(keep, data.ratio(data.subject, keep, stage.ms), data.ratio(data.subject, keep, stage.flops))
            for keep in data.pruned]  # fmt: skip
    return [(keep, measured, predicted) for keep, measured, predicted in each if measured and predicted]


def tower(data: TradeoffData) -> Finding | None:
    """Whether the vision tower, which pruning after it can't shorten, dominates the time to the first token."""
    shares = []
    for keep in data.keeps:
        encode, first = data.own(keep, "encode_ms"), data.own(keep, "first_token_ms")
        if encode is not None and first:
            shares.append((keep, encode / first, first))
    dominated = [(keep, first) for keep, part, first in shares if part > DOMINATES]
    if not shares:
        return None
    if not dominated:
        keep, part, _ = max(shares, key=lambda each: each[1])
        lead = "The vision tower takes less than half of the time to the first token."
        return Finding(tone="plain", lead=lead, text=f"Its largest share is {whole_share(part)}, {_at(keep)}.")
    (most, before, _), (least, after, last) = shares[0], shares[-1]
    text = (
        f"Encoding takes {whole_share(before)} of the time to the first token {_at(most)} and {whole_share(after)} "
        f"{_at(least)}."
    )
    start, first = dominated[0]
    if len(dominated) > 1 and start != least:
        text += f" Going from {share(start)} down to {share(least)} brings the first token {words.pace(first / last)}."
    keeps = ranged([keep for keep, _ in dominated], data.keeps)
    lead = f"At {keeps} the vision tower takes most of the time to the first token."
    return Finding(tone="bad", lead=lead, text=text)


def _at(keep: float) -> str:
    return "with all tokens" if keep == 1 else f"at {share(keep)}"


def prediction(data: TradeoffData) -> Finding | None:
    """Measured speed-ups beside those that the FLOPs predict."""
    each = [(pair.name, *values) for pair in (PREFILL, FIRST_TOKEN) for values in predicted_speedups(data, pair)]
    off = [speed for speed in each if abs(speed[2] / speed[3] - 1) > AGREE]
    if not each:
        return None
    if not off:
        keeps = ranged([keep for _, keep, *_ in each], data.keeps)
        lead = f"Every speed-up is within {share(AGREE)} of what the FLOPs predict."
        return Finding(tone="good", lead=lead, text=f"Compared for prefill and first token at {keeps}.")
    parts = []
    for name in dict.fromkeys(name for name, *_ in off):
        mine = [speed for speed in off if speed[0] == name]
        _, keep, measured, predicted = mine[-1]
        parts.append(
            f"{name} at {ranged([keep for _, keep, *_ in mine], data.keeps)} "
            f"(at {share(keep)}: {times(measured)} measured, {times(predicted)} predicted)"
        )
    lead = f"Some measured speed-ups differ from the FLOPs\u2019 prediction by more than {share(AGREE)}."
    return Finding(tone="bad", lead=lead, text=f"{capital(listed(parts))}.{_batch(data)}")


def _batch(data: TradeoffData) -> str:
    """The speed-up of a batch of four pictures, which share the fixed cost of a prefill."""
    keep = near_keep(data, 0.25)
    names = ("prefill_ms", "prefill_batch4_ms", "flops_llm")
    one, four, predicted = (None if keep is None else data.ratio(data.subject, keep, name) for name in names)
    if keep is None or one is None or four is None or predicted is None:
        return ""
    return (
        f" A prefill has a fixed cost, which a batch of four pictures shares: at {share(keep)}, batch 4 is "
        f"{times(four)} faster and batch 1 is {times(one)} faster; {times(predicted)} is predicted."
    )


def selection(data: TradeoffData) -> Finding | None:
    """The cost of choosing the tokens."""
    full, keep = data.full("prefill_ms"), near_keep(data, 0.25)
    select = data.own(keep, "select_ms")
    if not full or select is None or keep is None:
        return None
    cheap = select / full <= CHEAP
    text = f"{words.milliseconds(select)} at {share(keep)}, {share(round(select / full, 3))} of an unpruned prefill."
    lead = f"Choosing the tokens takes {'at most' if cheap else 'more than'} {share(CHEAP)} of a prefill."
    return Finding(tone="good" if cheap else "bad", lead=lead, text=text)


def memory(data: TradeoffData) -> Finding | None:
    """KV cache and peak memory."""
    keep = near_keep(data, 0.25)
    cache, peak = (_change(data, keep, column) for column in ("kv_bytes", "peak_bytes"))
    if keep is None or (cache is None and peak is None):
        return None
    parts = []
    if cache is not None:
        now = "falls" if cache[1] < cache[0] else "goes"
        parts.append(f"the KV cache {now} from {byte_size(cache[0])} to {byte_size(cache[1])}")
    stays = peak is not None and peak[1] >= 0.98 * peak[0]
    if peak is not None and stays:
        parts.append(f"peak memory does not fall ({byte_size(peak[0])} before, {byte_size(peak[1])} at {share(keep)})")
    elif peak is not None:
        parts.append(f"peak memory falls from {byte_size(peak[0])} to {byte_size(peak[1])}")
    lead = f"Memory at {share(keep)}."
    return Finding(tone="bad" if stays else "plain", lead=lead, text=capital(listed(parts)) + ".")


def _change(data: TradeoffData, keep: float | None, column: str) -> tuple[float, float] | None:
    before, now = data.full(column), data.own(keep, column)
    return None if not before or now is None else (before, now)
