"""Fill the README's table of sequence models from results files, so that no number there is typed by hand.

    .venv/bin/python recipes/compare_table.py benchmarks/results/compare_*.json

Put the results.json of a `salience compare` (or the comparisons of a `make study`) under benchmarks/results first: the
table names and links it. Of a record it reads `config` (task, metric, majority_accuracy, epochs, length,
train_examples, seeds; command and quick where they are) and `final`, a line a model: model, accuracy, accuracy_low,
accuracy_high, seeds, parameters, train_tokens_per_s; `tests` and `control` are told in words.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from salience.core.files import write_atomic
from salience.core.markers import filled
from salience.lab.report.compare.view import CompareView
from salience.lab.report.compare.words import controls, tested
from salience.lab.report.kit.words import DASH, finite
from salience.lab.report.load import Results, load_results

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- comparisons: begin (recipes/compare_table.py writes what stands here) -->"
END = "<!-- comparisons: end -->"
_HEAD = (
    "task",
    "model",
    "accuracy (95 %, every seed inside)",
    "majority",
    "fits × epochs",
    "parameters",
    "a fit takes",
)


def table(files: Sequence[tuple[str, Results]]) -> str:
    """The Markdown that stands between the markers: a line for every model, then what each file adds in words.

    Raises: ValueError when a file holds no comparison, or only a quick run's
    """
    lines, notes = [_line(*_HEAD), _line(*("---" for _ in _HEAD))], []
    for source, results in files:
        views = [CompareView(record) for record in results.of_kind("compare")]
        if not views:
            raise ValueError(f"{source} holds no comparison of sequence models.")
        for view in views:
            if view.config.get("quick"):
                raise ValueError(f"{source} is of a quick run, which measures nothing; the table needs a whole one.")
            lines += [_row(view, model) for model in view.models]
        notes.append(f"- {_origin(source, results, views)} {' '.join(_told(view) for view in views)}".rstrip())
    return "\n".join([*lines, "", *notes])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _row(view: CompareView, model: str) -> str:
    final = view.final.get(model, {})
    low, high = finite(final.get("accuracy_low")), finite(final.get("accuracy_high"))
    accuracy, parameters = view.last(model), finite(final.get("parameters"))
    span = "" if low is None or high is None else f" ({_short(low)}{DASH}{_short(high)})"
    way = ", both ways" if final.get("forwards") is False else ""
    return _line(
        str(view.config.get("task")), model + way, "diverged" if accuracy is None else _short(accuracy) + span,
        _short(view.setting("majority_accuracy")), f"{final.get('seeds', DASH)} × {view.config.get('epochs', DASH)}",
        DASH if parameters is None else f"{parameters:,.0f}", _duration(view, finite(final.get("train_tokens_per_s"))),
    )  # fmt: skip


def _short(accuracy: float | None) -> str:
    return DASH if accuracy is None else f"{accuracy:.3f}".removeprefix("0")


def _duration(view: CompareView, rate: float | None) -> str:
    """Of one fit's steps at the rate that was measured, evaluations left out."""
    parts = [view.setting(name) for name in ("epochs", "train_examples", "length")]
    if not rate or any(part is None for part in parts):
        return DASH
    seconds = 1.0
    for part in parts:
        seconds *= part or 0
    seconds /= rate
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60:.0f} min"


def _told(view: CompareView) -> str:
    """The pairs that differ in direction alone, and the control."""
    pairs = [tested(line) for causal, both in view.pairs if (line := view.test(both, causal)) is not None]
    named = f"{view.task}: " if pairs else ""
    return " ".join([named + " ".join(pairs), *(f"{found.lead} {found.text}" for found in controls(view))]).strip()


def _origin(source: str, results: Results, views: Sequence[CompareView]) -> str:
    found = results.environment
    commands = list(dict.fromkeys(str(view.config.get("command") or "make study") for view in views))
    where = f"{found.get('cpu') or found.get('device')}, {str(found.get('date'))[:10]}"
    return (
        f"{', '.join(f'`{command}`' for command in commands)} ({where}, {_beside(views[0])}commit "
        f"`{str(found.get('commit'))[:12]}`, torch {found.get('torch')}): [`{source}`]({source})."
    )


def _beside(view: CompareView) -> str:
    """How many fits ran side by side, on how many threads each: rates depend on it."""
    processes, threads = view.setting("processes"), view.setting("threads")
    if processes is None or threads is None:
        return ""
    return f"{processes:.0f} at a time, {threads:.0f} thread{'s' if threads > 1 else ''} each, "


def main() -> None:
    """Rewrite the README beside this repository's pyproject.toml."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    arguments = parser.parse_args()
    files = []
    for path in sorted(each.resolve() for each in arguments.results):
        source = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        files.append((source, load_results(path, path.parent)))
    readme = arguments.readme.read_text(encoding="utf-8")
    write_atomic(arguments.readme, filled(readme, BEGIN, END, table(files)))


if __name__ == "__main__":
    main()
