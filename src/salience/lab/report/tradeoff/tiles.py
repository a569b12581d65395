"""The row of key figures below the summary."""

from __future__ import annotations

from dataclasses import dataclass

from salience.core.result_tables import ALL_TOKENS
from salience.lab.report.kit.method_styles import title
from salience.lab.report.kit.words import byte_size, milliseconds, score, share, times, whole_share
from salience.lab.report.tradeoff.chosen_ratios import near_keep
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdict_words import interval_points
from salience.lab.report.tradeoff.verdicts import RANDOM


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One key figure: what it is, its value, and what stands beside it."""

    label: str
    value: str
    note: str


def tiles(data: TradeoffData) -> list[Tile]:
    """Up to six figures, without those that were not measured or may not be quoted."""
    if data.reliability.quick:
        return []
    keep = near_keep(data, 0.25)
    made = [_full_tile(data)]
    if data.blind is None and keep is not None:
        made += [_kept_tile(data, each) for each in dict.fromkeys((keep, near_keep(data, 0.1) or keep))]
        if data.reliability.times:
            made += [_first_tile(data, keep), _prefill_tile(data, keep)]
        made.append(_cache_tile(data, keep))
    return [tile for tile in made if tile is not None]


def _full_tile(data: TradeoffData) -> Tile | None:
    full = data.full("accuracy")
    if full is None:
        return None
    note = ", ".join(f"{name} {score(value)}" for name, value in data.baselines())
    if data.blind is not None:
        note += ": no better than without the picture"
    return Tile(label="accuracy with all tokens", value=score(full), note=note)


def _kept_tile(data: TradeoffData, keep: float) -> Tile | None:
    kept, random = data.own(keep, "accuracy"), data.value(RANDOM, keep, "accuracy")
    if kept is None:
        return None
    apart = data.verdicts.of(data.subject, keep, ALL_TOKENS)
    parts = [] if apart is None else [f"{interval_points(apart)} from all tokens"]
    if random is not None and data.subject != RANDOM:
        parts.append(f"random tokens {score(random)}")
    return Tile(label=f"accuracy at {share(keep)}, {title(data.subject)}", value=score(kept), note="; ".join(parts))


def _first_tile(data: TradeoffData, keep: float) -> Tile | None:
    before, now = data.full("first_token_ms"), data.own(keep, "first_token_ms")
    if not before or not now:
        return None
    value, label = _pace(before / now, "sooner", "later", "as soon")
    note = f"{milliseconds(now)} instead of {milliseconds(before)} with all tokens"
    return Tile(label=f"{label} to the first token at {share(keep)}", value=value, note=note)


def _pace(ratio: float, more: str, less: str, same: str) -> tuple[str, str]:
    """Return the factor and the word for it; a twentieth more or less counts as the same."""
    if ratio >= 1.05:
        return times(ratio), more
    return (times(1.0), same) if ratio > 1 / 1.05 else (times(1 / ratio), less)


def _prefill_tile(data: TradeoffData, keep: float) -> Tile | None:
    faster, predicted = (data.ratio(data.subject, keep, name) for name in ("prefill_ms", "flops_llm"))
    if faster is None:
        return None
    note = "language model alone" + ("" if predicted is None else f"; its FLOPs predict {times(predicted)}")
    value, label = _pace(faster, "faster", "slower", "as fast a")
    return Tile(label=f"{label} prefill at {share(keep)}", value=value, note=note)


def _cache_tile(data: TradeoffData, keep: float) -> Tile | None:
    before, now = data.full("kv_bytes"), data.own(keep, "kv_bytes")
    if not before or not now:
        return None
    note = f"{byte_size(now)} instead of {byte_size(before)} with all tokens"
    return Tile(label=f"of the KV cache at {share(keep)}", value=whole_share(now / before), note=note)
