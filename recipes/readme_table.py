"""Fill the README's result table from a study's results.json, so that no number there is typed by hand.

    .venv/bin/python recipes/readme_table.py benchmarks/results/study_<hardware>_<date>.json

Put the results.json of a `make study` under benchmarks/results first: the table names and links it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pages

from salience.core.record import Results, TradeoffRecord
from salience.lab.report.kit.method_styles import title
from salience.lab.report.kit.reliability import notices, reliability
from salience.lab.report.kit.words import share, times
from salience.lab.report.tradeoff.chosen_ratios import near_keep
from salience.lab.report.tradeoff.tradeoff_data import Point, TradeoffData

PAGE, BLOCK = pages.ROOT / "README.md", ("results", "recipes/readme_table.py")
SPEEDS = ("prefill_ms", "prefill_batch4_ms", "first_token_ms")
METHODS = ("saliency", "divprune", "vispruner", "cls-attention", "uniform", "random")


def table(results: Results, source: Path) -> str:
    """Markdown of the block: one line for each ratio (accuracy with its interval, speed), then the origin.

    Raises: ValueError when there is no trade-off in the results, or only a quick run's
    """
    records = results.of_kind(TradeoffRecord)
    if not records:
        raise ValueError(f"{source.name} holds no trade-off.")
    if records[0].config.get("quick"):
        raise ValueError(f"{source.name} is of a quick run, which measures nothing; the table needs a whole study.")
    view = TradeoffData(records[0])
    methods = [method for method in METHODS if method in view.methods]
    titles = ["LM prefill, batch 1", "LM prefill, batch 4", "first token"]
    head = ["visual tokens kept", *(title(method) for method in methods), *titles]
    rows = []
    for keep in view.keeps:
        tokens = view.tokens(keep)
        counted = "" if tokens is None else f" ({tokens:.0f})"
        speeds = [_speed(view, keep, column) for column in SPEEDS]
        rows.append([share(keep) + counted, *(_accuracy(view.at(method, keep)) for method in methods), *speeds])
    return "\n".join([*pages.table(head, rows), "", *_notes(view, results, source)])


def _accuracy(point: Point | None) -> str:
    if point is None or point.accuracy is None:
        return "not measured"
    known = point.low is not None and point.high is not None
    spread = f" ({pages.decimals(point.low)}–{pages.decimals(point.high)})" if known else ""
    return pages.decimals(point.accuracy) + spread


def _speed(view: TradeoffData, keep: float, column: str) -> str:
    ratio = view.ratio(view.subject, keep, column)
    return "not measured" if ratio is None else times(ratio)


def _notes(view: TradeoffData, results: Results, source: Path) -> list[str]:
    """Baselines, the meaning of the columns, and the origin of the numbers."""
    config = view.config
    keep = near_keep(view, 0.25) or 1.0
    baselines = [
        f"{name} {pages.decimals(value)}"
        for name, value in (
            ("answering without the picture", view.setting("question_only_accuracy")),
            ("always the commonest answer", view.setting("majority_accuracy")),
        )
        if value is not None
    ]
    return [
        f"Accuracy on {config.get('n_questions')} questions about {config.get('n_pictures', 'unseen')} pictures whose "
        "digits and photographs were never seen in training, with 95 % intervals over pictures, widened to hold every "
        f"seed. Baselines: {', '.join(baselines)}. Speed: times faster than with all tokens; the first token includes "
        f"the scorer. At {share(keep)} the FLOPs of a prefill predict {_speed(view, keep, 'flops_llm')}: batch 4 "
        "approaches this, batch 1 has a fixed cost.",
        "",
        f"Measured by {pages.origin(results, 'make study')}: {pages.link(source, PAGE)}.",
        *(line for notice in notices(reliability(config, results.environment)) for line in ("", f"**{notice}**")),
    ]


def main() -> None:
    """Rewrite the README beside this repository's pyproject.toml."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    ((source, results),) = pages.loaded([parser.parse_args().results])
    pages.fill(PAGE, *BLOCK, table(results, source))


if __name__ == "__main__":
    main()
