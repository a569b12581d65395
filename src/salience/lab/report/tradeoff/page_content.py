"""Content of a trade-off's part of the page, as its template reads it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salience.core.record import Results, TradeoffRecord
from salience.lab.report.kit.facts import facts
from salience.lab.report.kit.full_table import table
from salience.lab.report.kit.method_styles import phrase, title
from salience.lab.report.kit.reliability import notices
from salience.lab.report.tradeoff.column_definitions import COLUMNS
from salience.lab.report.tradeoff.figures import draw_all
from salience.lab.report.tradeoff.findings import findings
from salience.lab.report.tradeoff.headline import headline, summary
from salience.lab.report.tradeoff.limits import baseline_notes, limits
from salience.lab.report.tradeoff.method_notes import licences, method_notes, task_note
from salience.lab.report.tradeoff.samples import CutRow, PageSample, draw_strip, sample
from salience.lab.report.tradeoff.tiles import tiles
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

_SECTIONS = {
    "findings": "Findings", "latency": "Loss and latency", "tokens": "Tokens kept", "cost": "Time and FLOPs",
    "kinds": "Kinds of question", "inside": "Inside the model", "samples": "Samples", "table": "Table",
    "method": "Method",
}  # fmt: skip
#: section -> its figures
_FIGURES = {
    "latency": ("loss_latency", "accuracy_latency"),
    "tokens": ("accuracy_tokens", "loss_tokens"),
    "cost": ("time_stages", "flop_stages", "speedups"),
    "inside": ("answer_kl", "feature_cosine", "saliency_mass"),
}
#: Samples that are open on the page; the others are folded away.
OPEN_SAMPLES = 3


def tradeoff_content(record: TradeoffRecord, results: Results, figures: Path, number: int) -> dict[str, Any]:
    """Draw a trade-off's figures into `figures` and return the variables of its template.

    number: of this trade-off among the document's, from 0
    """
    data = TradeoffData(record, results.environment)
    prefix = "" if number == 0 else f"tradeoff{number + 1}_"
    drawn = draw_all(data, figures, prefix)
    samples = [sample(one, results.folder, f"{prefix}picture{at}") for at, one in enumerate(record.examples)]
    draw_strip(data, results.folder, figures / f"{prefix}kept.png")
    told, rows = findings(data), table(record.rows, COLUMNS)
    found: dict[str, Any] = {
        "id": f"tradeoff{number + 1}",
        "data": data,
        "subject": phrase(data.subject),
        "notices": notices(data.reliability),
        "headline": headline(data),
        "summary": summary(data),
        "tiles": tiles(data),
        "hero": _hero(data, samples),
        "findings": [finding for finding in told if finding.tone != "bad"],
        "failures": [finding for finding in told if finding.tone == "bad"],
        "plots": {name: [drawn[one] for one in each if one in drawn] for name, each in _FIGURES.items()},
        "kind_plots": [figure for name, figure in drawn.items() if name.startswith("kind_")],
        "timed_keeps": [k for k in data.keeps if data.own(k, "first_token_ms") or data.own(k, "prefill_ms")],
        "sample_note": _sample_note(data, samples),
        "samples": samples[:OPEN_SAMPLES],
        "more_samples": samples[OPEN_SAMPLES:],
        "table": rows,
        "csv": "data:text/csv;base64," + base64.b64encode(rows.csv.encode()).decode("ascii"),
        "facts": facts(data.config),
        "description": task_note(data),
        "licences": licences(data),
        "methods": method_notes(data),
        "baselines": baseline_notes(data),
        "limits": limits(data, results.environment),
    }
    filled = {
        "findings": told, "kinds": data.kinds, "samples": samples, "table": True, "method": True,
        **{name: found["plots"][name] for name in _FIGURES},
    }  # fmt: skip
    filled["cost"] = filled["cost"] or found["timed_keeps"]
    return {**found, "sections": [(anchor, name) for anchor, name in _SECTIONS.items() if filled[anchor]]}


def _hero(data: TradeoffData, samples: Sequence[PageSample]) -> tuple[PageSample, CutRow] | None:
    """The first sample that has the subject's cuts: the first, not the best."""
    for pictured in samples:
        for row in pictured.cut_rows:
            if row.method == title(data.subject) and pictured.picture is not None:
                return pictured, row
    return None


def _sample_note(data: TradeoffData, samples: Sequence[PageSample]) -> str:
    """In how many samples the answer is right at every ratio with the subject."""
    rows = [row for item in samples for row in item.cut_rows if row.method == title(data.subject)]
    if not rows:
        return ""
    held = sum(all(cut is None or cut.right for cut in row.cuts) for row in rows)
    return f"In {held} of these {len(rows)} samples the answer with {phrase(data.subject)} is right at every ratio."
