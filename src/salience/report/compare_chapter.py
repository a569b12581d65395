"""A comparison as what the page's template shows: its headline, its figures, its last epoch and its tests in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.report import about
from salience.report.columns import Table, table
from salience.report.compare_figures import draw_compare
from salience.report.compare_view import CompareView
from salience.report.figures import Drawn
from salience.report.load import Record
from salience.report.words import finite, points, score

_LEVEL = 0.05  # of the corrected p
_BY_EPOCH = ("train_loss", "test_accuracy")
_SHOWN = (
    "task", "length", "metric", "epochs", "seeds", "batch", "train_examples", "test_examples", "rates_tried", "ssm_lr",
    "weight_decay", "precision", "processes", "threads", "source", "licence", "credit", "interval", "test",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompareChapter:
    """Everything that the page says of one comparison."""

    id: str
    task: str
    headline: str
    answer: str
    epochs_title: str
    figures: list[Drawn]
    cost_figures: list[Drawn]
    final: list[tuple[str, ...]]
    tests: list[str]
    failures: list[str]
    table: Table
    facts: list[tuple[str, str]]


def compare_chapter(record: Record, folder: Path, number: int) -> CompareChapter:
    """Draws a comparison's figures into `folder` and writes its words; `number` counts comparisons from 0."""
    view = CompareView(record)
    drawn = draw_compare(view, folder, "compare_" if number == 0 else f"compare{number + 1}_")
    return CompareChapter(
        id=f"compare{number + 1}",
        task=str(view.config.get("task") or ""),
        headline=_headline(view),
        answer=_answer(view),
        epochs_title=_epochs_title(view),
        figures=[drawn[name] for name in _BY_EPOCH if name in drawn],
        cost_figures=[figure for name, figure in drawn.items() if name not in _BY_EPOCH],
        final=[_final(view, model) for model in view.models],
        tests=[_test(line) for line in view.lines("tests")],
        failures=_failures(view),
        table=table(record.rows),
        facts=about.facts({name: view.config[name] for name in _SHOWN if name in view.config}),
    )


def _headline(view: CompareView) -> str:
    return f"Sequence models under identical training: {view.config.get('task')}"


def _epochs_title(view: CompareView) -> str:
    ways = {line.get("forwards") for line in view.final.values()}
    both = ", causal and non-causal" if {True, False} <= ways else ""
    count = view.config.get("epochs")
    return f"Training loss and test accuracy{both}" + (f", {count} epochs" if count else "")


def _answer(view: CompareView) -> str:
    known = [(value, model) for model in view.models if (value := view.last(model)) is not None]
    if not known:
        return "No model came to the end of its training."
    told = ", ".join(f"{model} {score(value)}" for value, model in sorted(known, reverse=True))
    line = view.setting("majority_accuracy")
    beside = "" if line is None else f" Always saying the commonest answer scores {score(line)}."
    return f"Accuracy after the last epoch: {told}.{beside}"


def _final(view: CompareView, model: str) -> tuple[str, ...]:
    line = view.final.get(model, {})
    low, high = finite(line.get("accuracy_low")), finite(line.get("accuracy_high"))
    accuracy, dash = view.last(model), "\u2013"
    span = dash if low is None or high is None else f"{low:.3f}{dash}{high:.3f}"
    way = {True: "forwards", False: "both ways"}.get(line.get("forwards"), dash)  # type: ignore[arg-type]
    parameters, rate = finite(line.get("parameters")), finite(line.get("train_tokens_per_s"))
    return (
        model, way, dash if accuracy is None else f"{accuracy:.3f}", span, str(line.get("seeds", dash)),
        dash if parameters is None else f"{parameters:,.0f}", dash if rate is None else f"{rate:,.0f}",
    )  # fmt: skip


def _test(line: Mapping[str, Any]) -> str:
    """A pair in words: the better one, by how much, and whether that is more than chance."""
    apart, p = float(line["difference"]), float(line["p_holm"])
    first, second = (line["first"], line["second"]) if apart >= 0 else (line["second"], line["first"])
    sign = 100 if apart >= 0 else -100
    low, high = sorted(sign * float(line[end]) for end in ("low", "high"))
    chance = "p below 0.001" if p < 0.001 else f"p = {p:.3f}"
    span = f"95% interval {low:.1f} to {high:.1f}, {chance}"
    if p >= _LEVEL:
        return f"{first} and {second} can't be told apart: {points(apart)} ({span})."
    agree = "" if line["seeds_agree"] else " Not every seed agrees."
    return f"{first} is ahead of {second} by {points(apart)} ({span}).{agree}"


def _failures(view: CompareView) -> list[str]:
    """What did not work, and where to be careful."""
    found = [f"{line['model']}, seed {line['seed']}: {line['said']}" for line in view.lines("diverged")]
    line = view.setting("majority_accuracy")
    for model in view.models:
        value = view.last(model)
        if value is not None and line is not None and value < line + 0.05:
            found.append(f"{model} does no better than the commonest answer ({score(value)} against {score(line)}).")
    blind = max((v for v in (line, view.setting("chance_accuracy")) if v is not None), default=None)
    for control in view.lines("control"):
        low, value = finite(control.get("accuracy_low")), finite(control.get("accuracy"))
        if value is not None and blind is not None:
            fell = value < blind + 0.03 or (low is not None and low <= blind)
            found.append(
                f"{control['model']} on shuffled labels ends at {score(value)}, "
                f"{'at the majority line, as it must' if fell else 'ABOVE the majority line: something leaks'}."
            )
    seeds = finite(view.config.get("seeds"))
    if seeds is not None and seeds < 2:
        found.append("One seed: another may differ.")
    return found
