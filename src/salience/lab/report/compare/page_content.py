"""Content of a comparison's part of the page, as its template reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salience.core.record import CompareRecord
from salience.lab.report.compare import sentences
from salience.lab.report.compare.column_definitions import COLUMNS
from salience.lab.report.compare.compare_data import CompareData
from salience.lab.report.compare.figures import EPOCHS, PAIR, draw_compare
from salience.lab.report.kit.facts import facts
from salience.lab.report.kit.full_table import table
from salience.lab.report.kit.reliability import notices

_SHOWN = (
    "command", "task", "length", "metric", "epochs", "seeds", "batch", "train_examples", "test_examples",
    "rates_tried", "ssm_lr", "weight_decay", "precision", "processes", "threads", "source", "licence", "credit",
    "interval", "test",
)  # fmt: skip


def compare_content(
    record: CompareRecord, folder: Path, number: int, environment: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Draw a comparison's figures into `folder` and return the variables of its template.

    number: of this comparison among the document's, from 0
    """
    data = CompareData(record, environment)
    drawn = draw_compare(data, folder, "compare_" if number == 0 else f"compare{number + 1}_")
    return {
        "id": f"compare{number + 1}",
        "data": data,
        "task": data.task,
        "notices": notices(data.reliability),
        "headline": sentences.headline(data),
        "summary": sentences.summary(data),
        "pair_title": sentences.epochs_title(data, pair=True),
        "pair_figures": [drawn[name] for name in PAIR if name in drawn],
        "pair_caption": sentences.pair_caption(data),
        "epochs_title": sentences.epochs_title(data, pair=False),
        "figures": [drawn[name] for name in EPOCHS if name in drawn],
        "cost_figures": [figure for name, figure in drawn.items() if name not in EPOCHS + PAIR],
        "crossings": sentences.crossings(data),
        "final_note": sentences.matched(data),
        "tests": sentences.tests(data),
        "controls": sentences.controls(data),
        "cautions": sentences.cautions(data),
        "table": table(record.rows, COLUMNS),
        "facts": facts({name: data.config[name] for name in _SHOWN if name in data.config}),
    }
