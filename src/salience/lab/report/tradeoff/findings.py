"""All findings that apply to a record, in the page's order."""

from __future__ import annotations

from dataclasses import replace

from salience.lab.report.kit.finding import Finding
from salience.lab.report.tradeoff.cost_findings import COSTS, TIMES
from salience.lab.report.tradeoff.quality_findings import QUALITY, ignores_picture
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData


def findings(data: TradeoffData) -> list[Finding]:
    """Rankings first, then kinds of question, then time, arithmetic and memory.

    None of a quick run; none about time on a busy machine; of a model that ignores the picture only its costs, without
    praise.
    """
    if data.reliability.quick:
        return []
    costs = [tell for tell in COSTS if data.reliability.times or tell not in TIMES]
    blind = ignores_picture(data)
    told = [found for tell in (costs if blind else (*QUALITY, *costs)) if (found := tell(data)) is not None]
    if blind is None:
        return told
    return [blind, *(replace(found, tone="plain" if found.tone == "good" else found.tone) for found in told)]
