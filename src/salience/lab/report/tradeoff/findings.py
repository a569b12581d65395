"""What was found and what did not work: everything that applies to a record, in the page's order."""

from dataclasses import replace

from salience.lab.report.kit.finding import Finding
from salience.lab.report.tradeoff.cost_findings import COSTS, TIMES
from salience.lab.report.tradeoff.quality_findings import QUALITY, unseeing
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData


def findings(data: TradeoffData) -> list[Finding]:
    """The comparison first, then the questions, then time, arithmetic and memory.

    Nothing of a quick run, nothing about time on a busy machine, and of a model that does not look only what it costs,
    without praise.
    """
    if data.reliability.quick:
        return []
    costs = [tell for tell in COSTS if data.reliability.times or tell not in TIMES]
    blind = unseeing(data)
    if blind is not None:
        told = [finding for tell in costs if (finding := tell(data)) is not None]
        return [
            blind,
            *(replace(finding, tone="plain" if finding.tone == "good" else finding.tone) for finding in told),
        ]
    return [finding for tell in (*QUALITY, *costs) if (finding := tell(data)) is not None]
