"""Fill the README's result table from a study's results.json, so that no number there is typed by hand.

    .venv/bin/python recipes/readme_table.py benchmarks/results/study_<hardware>_<date>.json

Put the results.json of a `make study` under benchmarks/results first: the table names and links it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from salience.core.files import write_atomic
from salience.core.markers import filled
from salience.lab.report.kit.method_styles import title
from salience.lab.report.kit.standing import notices, standing
from salience.lab.report.kit.words import share, times
from salience.lab.report.load import Results, load_results
from salience.lab.report.tradeoff.answer import near_keep
from salience.lab.report.tradeoff.series import Point, View

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: begin (recipes/readme_table.py writes what stands here) -->", "<!-- results: end -->"
SPEEDS = ("prefill_ms", "prefill_batch4_ms", "first_token_ms")
METHODS = ("saliency", "divprune", "vispruner", "cls-attention", "uniform", "random")


def table(results: Results, source: str) -> str:
    """The Markdown that stands between the markers: one line a ratio, accuracy with its interval, speed, provenance.

    Raises: ValueError when there is no trade-off in the results, or only a quick run's
    """
    records = results.of_kind("tradeoff")
    if not records:
        raise ValueError(f"{source} holds no trade-off.")
    if records[0].config.get("quick"):
        raise ValueError(f"{source} is of a quick run, which measures nothing; the table needs a whole study.")
    view = View(records[0])
    methods = [method for method in METHODS if method in view.methods]
    lines = [
        _line("visual tokens kept", *(title(method) for method in methods), "LM prefill", "of four", "first token"),
        _line(*("---" for _ in range(len(methods) + 4))),
    ]
    for keep in view.keeps:
        tokens = view.tokens(keep)
        counted = "" if tokens is None else f" ({tokens:.0f})"
        speeds = [_speed(view, keep, column) for column in SPEEDS]
        lines.append(_line(share(keep) + counted, *(_accuracy(view.at(method, keep)) for method in methods), *speeds))
    return "\n".join([*lines, "", *_beside(view, results, source)])


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _accuracy(point: Point | None) -> str:
    if point is None or point.accuracy is None:
        return "not measured"
    spread = "" if point.low is None or point.high is None else f" ({_short(point.low)}–{_short(point.high)})"
    return _short(point.accuracy) + spread


def _short(accuracy: float) -> str:
    return f"{accuracy:.3f}".removeprefix("0")


def _speed(view: View, keep: float, column: str) -> str:
    ratio = view.ratio(view.subject, keep, column)
    return "not measured" if ratio is None else times(ratio)


def _beside(view: View, results: Results, source: str) -> list[str]:
    """What the numbers are to be held against, and where they come from."""
    found, config = results.environment, view.config
    keep = near_keep(view, 0.25) or 1.0
    told = _speed(view, keep, "flops_llm")
    baselines = [
        f"{name} {_short(value)}"
        for name, value in (
            ("answering without the picture", view.setting("question_only_accuracy")),
            ("always the commonest answer", view.setting("majority_accuracy")),
        )
        if value is not None
    ]
    return [
        f"Accuracy on {config.get('n_questions')} questions about {config.get('n_pictures', 'unseen')} pictures whose "
        "digits and photographs were never seen in training, with 95 % intervals over pictures, widened to hold every "
        f"seed. For comparison: {', '.join(baselines)}. Speed: how many times faster than with all tokens, saliency's "
        f"own time included in the first token's; at {share(keep)} the FLOPs of a prefill predict {told}, which four "
        "pictures at once come near, and one, with a fixed cost of its own, doesn't.",
        "",
        f"Measured by `make study` on {found.get('cpu') or found.get('device')} ({found.get('threads')} threads, "
        f"{str(found.get('date'))[:10]}, commit `{str(found.get('commit'))[:12]}`, torch {found.get('torch')}, "
        f"transformers {found.get('transformers')}): [`{source}`]({source}).",
        *(line for notice in notices(standing(config, found)) for line in ("", f"**{notice}**")),
    ]


def main() -> None:
    """Rewrite the README beside this repository's pyproject.toml."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    arguments = parser.parse_args()
    path = arguments.results.resolve()
    source = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    text = table(load_results(path, path.parent), source)
    write_atomic(arguments.readme, filled(arguments.readme.read_text(encoding="utf-8"), BEGIN, END, text))


if __name__ == "__main__":
    main()
