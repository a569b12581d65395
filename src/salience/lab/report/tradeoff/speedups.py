"""Measured speed-ups and the FLOPs that predict them."""

from __future__ import annotations

from dataclasses import dataclass

from salience.lab.report.tradeoff.tradeoff_data import TradeoffData


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
