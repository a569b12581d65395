"""A comparison as what the page's template shows: its headline, its figures, its last epoch and its tests in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.lab.report.compare import words as compare_words
from salience.lab.report.compare.figures import EPOCHS, PAIR, draw_compare
from salience.lab.report.compare.view import CompareView
from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.standing import notices
from salience.lab.report.kit.words import DASH, finite
from salience.lab.report.load import Record
from salience.lab.report.tradeoff import about
from salience.lab.report.tradeoff.columns import COMPARE, Table, table
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
    view = CompareView(record, environment)
    drawn = draw_compare(view, folder, "compare_" if number == 0 else f"compare{number + 1}_")
    return CompareChapter(
        id=f"compare{number + 1}",
        task=view.task,
        notices=notices(view.standing),
        headline=compare_words.headline(view),
        answer=compare_words.answer(view),
        pair_title=compare_words.epochs_title(view, pair=True),
        pair_figures=[drawn[name] for name in PAIR if name in drawn],
        pair_caption=compare_words.pair_caption(view),
        epochs_title=compare_words.epochs_title(view, pair=False),
        figures=[drawn[name] for name in EPOCHS if name in drawn],
        cost_figures=[figure for name, figure in drawn.items() if name not in EPOCHS + PAIR],
        crossings=compare_words.crossings(view),
        final=[_final(view, model) for model in view.models],
        final_note=compare_words.matched(view),
        tests=compare_words.tests(view),
        controls=compare_words.controls(view),
        cautions=compare_words.cautions(view),
        table=table(record.rows, COMPARE),
        facts=about.facts({name: view.config[name] for name in _SHOWN if name in view.config}),
    )


def _final(view: CompareView, model: str) -> tuple[str, ...]:
    line = view.final.get(model, {})
    low, high = finite(line.get("accuracy_low")), finite(line.get("accuracy_high"))
    accuracy = view.last(model)
    span = DASH if low is None or high is None else f"{low:.3f}{DASH}{high:.3f}"
    way = {True: "forwards", False: "both ways"}.get(line.get("forwards"), DASH)  # type: ignore[arg-type]
    width, layers = line.get("d_model"), line.get("n_layers")
    shape = f"{width} \u00d7 {layers}" if width and layers else DASH
    parameters, rate = finite(line.get("parameters")), finite(line.get("train_tokens_per_s"))
    return (
        model, way, DASH if accuracy is None else f"{accuracy:.3f}", span, str(line.get("seeds", DASH)), shape,
        DASH if parameters is None else f"{parameters:,.0f}", DASH if rate is None else f"{rate:,.0f}",
    )  # fmt: skip
