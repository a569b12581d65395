"""All findings that apply to a record, in the page's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from salience.lab.report.kit.finding import Finding
from salience.lab.report.tradeoff import cost_findings, quality_findings, rankings
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

Tell = Callable[[TradeoffData], Finding | None]
QUALITY: tuple[Tell, ...] = (
    rankings.alike,
    rankings.against_random,
    rankings.against_free,
    rankings.beside_random,
    rankings.controls,
    quality_findings.breaking_point,
    rankings.oracle,
    quality_findings.suffering_kinds,
    quality_findings.idle_kinds,
    rankings.better_than_full,
    quality_findings.probe_loss,
    quality_findings.other_picture,
)
#: Without meaning on a busy machine.
TIMES: tuple[Tell, ...] = (cost_findings.tower, cost_findings.prediction, cost_findings.selection)


def findings(data: TradeoffData) -> list[Finding]:
    """Rankings first, then kinds of question, then time, arithmetic and memory.

    None of a quick run; none about time on a busy machine; of a model that ignores the picture only its costs, without
    praise.
    """
    if data.reliability.quick:
        return []
    costs = [*(TIMES if data.reliability.times else ()), cost_findings.memory]
    blind = quality_findings.ignores_picture(data)
    told = [found for tell in (costs if blind else (*QUALITY, *costs)) if (found := tell(data)) is not None]
    if blind is None:
        return told
    return [blind, *(replace(found, tone="plain" if found.tone == "good" else found.tone) for found in told)]
