"""What was found about time, arithmetic and memory."""

from collections.abc import Callable

from salience.lab.report.kit.finding import Finding, Tone
from salience.lab.report.kit.words import (
    byte_size,
    capital,
    listed,
    milliseconds,
    pace,
    ranged,
    share,
    times,
    whole_share,
)
from salience.lab.report.tradeoff.headline import near_keep
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

#: A stage that takes this share of the time to the first token rules it.
RULES = 0.5
#: Measured and predicted speed-ups this near agree.
AGREE = 0.25
#: Selection may cost this share of the unpruned prefill.
CHEAP = 0.03


def tower(data: TradeoffData) -> Finding | None:
    """Whether encoding the picture, which pruning after the tower can't shorten, rules the time to the first token."""
    shares = []
    for keep in data.keeps:
        encode, first = (data.value(data.subject, keep, column) for column in ("encode_ms", "first_token_ms"))
        if encode is not None and first:
            shares.append((keep, encode / first, first))
    ruled = [keep for keep, part, _ in shares if part > RULES]
    if not shares:
        return None
    if not ruled:
        keep, part, _ = max(shares, key=lambda each: each[1])
        lead = "The vision tower takes less than half of the time to the first token."
        return Finding(tone="plain", lead=lead, text=f"The most is {whole_share(part)}, {_at(keep)}.")
    (most, before, _), (least, after, last) = shares[0], shares[-1]
    text = (
        f"Encoding takes {whole_share(before)} of the time to the first token {_at(most)} and {whole_share(after)} "
        f"{_at(least)}."
    )
    at_rule = next(first for keep, _, first in shares if keep == ruled[0])
    if len(ruled) > 1 and ruled[0] != least:
        text += f" From {share(ruled[0])} down to {share(least)} the first token comes {pace(at_rule / last)}."
    lead = f"At {ranged(ruled, data.keeps)} the vision tower takes most of the time to the first token."
    return Finding(tone="bad", lead=lead, text=text)


def _at(keep: float) -> str:
    return "with all tokens" if keep == 1 else f"at {share(keep)}"


def prediction(data: TradeoffData) -> Finding | None:
    """Measured speed-ups beside those that the FLOPs predict."""
    off: list[tuple[str, float, float, float]] = []
    fine: list[tuple[str, float, float, float]] = []
    for name, clock, flops in (
        ("prefill", "prefill_ms", "flops_llm"),
        ("first token", "first_token_ms", "flops_total"),
    ):
        for keep in data.pruned:
            measured, told = data.ratio(data.subject, keep, clock), data.ratio(data.subject, keep, flops)
            if measured is None or told is None:
                continue
            apart = measured / told - 1
            (fine if abs(apart) <= AGREE else off).append((name, keep, measured, told))
    if not off and not fine:
        return None
    if not off:
        lead = f"Every speed-up is within {share(AGREE)} of what the FLOPs predict."
        return Finding(
            tone="good",
            lead=lead,
            text=f"Checked for prefill and first token at {ranged([keep for _, keep, *_ in fine], data.keeps)}.",
        )
    parts = []
    for name in dict.fromkeys(item[0] for item in off):
        keeps = [item[1] for item in off if item[0] == name]
        _, keep, measured, told = next(item for item in reversed(off) if item[0] == name)
        parts.append(
            f"{name} at {ranged(keeps, data.keeps)} "
            f"(at {share(keep)}: {times(measured)} measured, {times(told)} predicted)"
        )
    lead = f"FLOPs mispredict the clock by more than {share(AGREE)} in places."
    return Finding(tone="bad", lead=lead, text=f"{capital(listed(parts))}.{_four(data)}")


def _four(data: TradeoffData) -> str:
    """What a prefill's fixed cost hides: several pictures at once share it."""
    keep = near_keep(data, 0.25)
    if keep is None:
        return ""
    one, four, told = (
        data.ratio(data.subject, keep, name) for name in ("prefill_ms", "prefill_batch4_ms", "flops_llm")
    )
    if one is None or four is None or told is None:
        return ""
    return (
        f" Every prefill has a fixed cost, which four pictures at once share: at {share(keep)} theirs is {times(four)} "
        f"faster, one picture's {times(one)}, predicted {times(told)}."
    )


def selection(data: TradeoffData) -> Finding | None:
    """What choosing the tokens costs."""
    full, keep = data.full("prefill_ms"), near_keep(data, 0.25)
    select = data.value(data.subject, keep, "select_ms")
    if not full or select is None or keep is None:
        return None
    part = select / full
    text = f"{milliseconds(select)} at {share(keep)}, {share(round(part, 3))} of an unpruned prefill."
    least, tone = ("at most", "good") if part <= CHEAP else ("more than", "bad")
    lead = f"Choosing the tokens takes {least} {share(CHEAP)} of a prefill."
    return Finding(tone="good" if tone == "good" else "bad", lead=lead, text=text)


def memory(data: TradeoffData) -> Finding | None:
    """Cache and peak memory."""
    keep = near_keep(data, 0.25)
    cache, peak = (_change(data, keep, column) for column in ("kv_bytes", "peak_bytes"))
    if keep is None or (cache is None and peak is None):
        return None
    parts = []
    if cache is not None:
        now = "falls" if cache[1] < cache[0] else "goes"
        parts.append(f"the key-value cache {now} from {byte_size(cache[0])} to {byte_size(cache[1])}")
    tone: Tone = "plain"
    if peak is not None and peak[1] >= 0.98 * peak[0]:
        tone = "bad"
        parts.append(f"peak memory does not fall ({byte_size(peak[0])} before, {byte_size(peak[1])} at {share(keep)})")
    elif peak is not None:
        parts.append(f"peak memory falls from {byte_size(peak[0])} to {byte_size(peak[1])}")
    lead = f"Memory at {share(keep)}."
    return Finding(tone=tone, lead=lead, text=capital(listed(parts)) + ".")


def _change(data: TradeoffData, keep: float | None, column: str) -> tuple[float, float] | None:
    before, now = data.full(column), data.value(data.subject, keep, column)
    return None if not before or now is None else (before, now)


COSTS: tuple[Callable[[TradeoffData], Finding | None], ...] = (tower, prediction, selection, memory)
#: Those that a busy machine makes worthless.
TIMES = (tower, prediction, selection)
