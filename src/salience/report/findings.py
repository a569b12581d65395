"""What was found and what did not work: everything that applies to a record, in the page's order."""

from salience.report.costs import COSTS
from salience.report.finding import Finding
from salience.report.quality import QUALITY
from salience.report.series import View


def findings(view: View) -> list[Finding]:
    """The comparison first, then the questions, then time, arithmetic and memory."""
    return [finding for tell in (*QUALITY, *COSTS) if (finding := tell(view)) is not None]
