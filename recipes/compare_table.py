"""Fill the table of docs/measured/sequence-models.md from results files, so that no number there is typed by hand.

    .venv/bin/python recipes/compare_table.py benchmarks/results/compare_*.json benchmarks/results/study_*.json

Put the results.json of a `salience compare` (or of a `make study`) under benchmarks/results first: the page links it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pages

from salience.core.record import CompareRecord, Results
from salience.lab.report.compare.compare_data import CompareData
from salience.lab.report.compare.sentences import controls, tested
from salience.lab.report.kit.words import DASH

PAGE, BLOCK = pages.ROOT / "docs" / "measured" / "sequence-models.md", ("comparisons", "recipes/compare_table.py")
_HEAD = (
    "task",
    "model",
    "accuracy (95 %, every seed inside)",
    "majority",
    "fits × epochs",
    "parameters",
    "a fit takes",
)


def table(files: Sequence[tuple[Path, Results]]) -> str:
    """Markdown of the block: a line for every model, then a sentence or two for each file.

    Raises: ValueError when a file holds no comparison, or only a quick run's
    """
    rows, notes = [], []
    for source, results in files:
        views = [CompareData(record) for record in results.of_kind(CompareRecord)]
        if not views:
            raise ValueError(f"{source.name} holds no comparison of sequence models.")
        for view in views:
            if view.config.get("quick"):
                raise ValueError(
                    f"{source.name} is of a quick run, which measures nothing; the table needs a whole one."
                )
            rows += [_row(view, model) for model in view.models]
        notes.append(f"- {_origin(source, results, views)} {' '.join(_words(view) for view in views)}".rstrip())
    return "\n".join([*pages.table(_HEAD, rows), "", *notes])


def _row(view: CompareData, model: str) -> list[str]:
    final = view.final[model]
    low, high = final.accuracy_low, final.accuracy_high
    accuracy, parameters = view.last(model), final.parameters
    span = "" if low is None or high is None else f" ({_short(low)}{DASH}{_short(high)})"
    way = "" if final.forwards else ", both ways"
    return [
        str(view.config.get("task")), model + way, "diverged" if accuracy is None else _short(accuracy) + span,
        _short(view.setting("majority_accuracy")), f"{final.seeds} × {view.config.get('epochs', DASH)}",
        DASH if parameters is None else f"{parameters:,.0f}", _duration(view, final.train_tokens_per_s),
    ]  # fmt: skip


def _short(accuracy: float | None) -> str:
    return DASH if accuracy is None else pages.decimals(accuracy)


def _duration(view: CompareData, rate: float | None) -> str:
    """Time of one fit's steps at the measured rate, without evaluations."""
    parts = [view.setting(name) for name in ("epochs", "train_examples", "length")]
    if not rate or any(part is None for part in parts):
        return DASH
    seconds = 1.0
    for part in parts:
        seconds *= part or 0
    seconds /= rate
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60:.0f} min"


def _words(view: CompareData) -> str:
    """Sentences about the pairs that differ in direction alone, and about the control."""
    pairs = [tested(line) for causal, both in view.pairs if (line := view.test(both, causal)) is not None]
    named = f"{view.task}: " if pairs else ""
    return " ".join([named + " ".join(pairs), *(f"{found.lead} {found.text}" for found in controls(view))]).strip()


def _origin(source: Path, results: Results, views: Sequence[CompareData]) -> str:
    found = results.environment
    commands = list(dict.fromkeys(str(view.config.get("command") or "make study") for view in views))
    where = f"{found.get('cpu') or found.get('device')}, {str(found.get('date'))[:10]}"
    return (
        f"{', '.join(f'`{command}`' for command in commands)} ({where}, {_load(views[0])}commit "
        f"`{str(found.get('commit'))[:12]}`, torch {found.get('torch')}): {pages.link(source, PAGE)}."
    )


def _load(view: CompareData) -> str:
    """Number of simultaneous fits and threads of each, which the rates depend on."""
    processes, threads = view.setting("processes"), view.setting("threads")
    if processes is None or threads is None:
        return ""
    return f"{processes:.0f} at a time, {threads:.0f} thread{'s' if threads > 1 else ''} each, "


def main() -> None:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    pages.fill(PAGE, *BLOCK, table(pages.loaded(sorted(parser.parse_args().results))))


if __name__ == "__main__":
    main()
