"""A comparison as what the page's template shows: its headline, its figures, its last epoch and its tests in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.lab.report.compare import sentences
from salience.lab.report.compare.compare_data import CompareData
from salience.lab.report.compare.figures import EPOCHS, PAIR, draw_compare
from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.reliability import notices
from salience.lab.report.kit.words import DASH, finite
from salience.lab.report.load import Record
from salience.lab.report.tradeoff import limits
from salience.lab.report.tradeoff.column_definitions import COMPARE, Table, table
from salience.lab.report.tradeoff.figures import Drawn

_SHOWN = (
    "command", "task", "length", "metric", "epochs", "seeds", "batch", "train_examples", "test_examples",
    "rates_tried", "ssm_lr", "weight_decay", "precision", "processes", "threads", "source", "licence", "credit",
    "interval", "test",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompareChapter:
    """Everything that the page says of one comparison."""

    id: str
    task: str
    notices: list[str]
    headline: str
    answer: str
    pair_title: str
    pair_figures: list[Drawn]
    pair_caption: str
    epochs_title: str
    figures: list[Drawn]
    cost_figures: list[Drawn]
    crossings: list[str]
    final: list[tuple[str, ...]]
    final_note: str
    tests: list[str]
    controls: list[Finding]
    cautions: list[Finding]
    table: Table
    facts: list[tuple[str, str]]


def compare_chapter(
    record: Record, folder: Path, number: int, environment: Mapping[str, Any] | None = None
) -> CompareChapter:
    """Draws a comparison's figures into `folder` and writes its words; `number` counts comparisons from 0."""
    data = CompareData(record, environment)
    drawn = draw_compare(data, folder, "compare_" if number == 0 else f"compare{number + 1}_")
    return CompareChapter(
        id=f"compare{number + 1}",
        task=data.task,
        notices=notices(data.reliability),
        headline=sentences.headline(data),
        answer=sentences.answer(data),
        pair_title=sentences.epochs_title(data, pair=True),
        pair_figures=[drawn[name] for name in PAIR if name in drawn],
        pair_caption=sentences.pair_caption(data),
        epochs_title=sentences.epochs_title(data, pair=False),
        figures=[drawn[name] for name in EPOCHS if name in drawn],
        cost_figures=[figure for name, figure in drawn.items() if name not in EPOCHS + PAIR],
        crossings=sentences.crossings(data),
        final=[_final(data, model) for model in data.models],
        final_note=sentences.matched(data),
        tests=sentences.tests(data),
        controls=sentences.controls(data),
        cautions=sentences.cautions(data),
        table=table(record.rows, COMPARE),
        facts=limits.facts({name: data.config[name] for name in _SHOWN if name in data.config}),
    )


def _final(data: CompareData, model: str) -> tuple[str, ...]:
    line = data.final.get(model, {})
    low, high = finite(line.get("accuracy_low")), finite(line.get("accuracy_high"))
    accuracy = data.last(model)
    span = DASH if low is None or high is None else f"{low:.3f}{DASH}{high:.3f}"
    way = {True: "forwards", False: "both ways"}.get(line.get("forwards"), DASH)  # type: ignore[arg-type]
    width, layers = line.get("d_model"), line.get("n_layers")
    shape = f"{width} \u00d7 {layers}" if width and layers else DASH
    parameters, rate = finite(line.get("parameters")), finite(line.get("train_tokens_per_s"))
    return (
        model, way, DASH if accuracy is None else f"{accuracy:.3f}", span, str(line.get("seeds", DASH)), shape,
        DASH if parameters is None else f"{parameters:,.0f}", DASH if rate is None else f"{rate:,.0f}",
    )  # fmt: skip
