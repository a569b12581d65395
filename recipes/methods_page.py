"""Fill docs/measured/pruning.md and draw docs/images/methods.svg, all methods side by side, from results of trade-offs.

cd benchmarks/results
../../.venv/bin/python ../../recipes/methods_page.py methods_*.json methods-inside_*.json easy-vqa_*.json
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pages

from salience.core.files import write_atomic
from salience.core.record import Results, TradeoffRecord
from salience.lab.report.kit.figure import standalone
from salience.lab.report.kit.method_styles import role, styles, title
from salience.lab.report.kit.panel import RC, Curve, Scale, lines
from salience.lab.report.kit.words import share
from salience.lab.report.tradeoff.rankings import beside_random
from salience.lab.report.tradeoff.tradeoff_data import Point, TradeoffData
from salience.lab.report.tradeoff.verdict_words import interval
from salience.lab.report.tradeoff.verdicts import RANDOM

SCRIPT = "recipes/methods_page.py"
PAGE = pages.ROOT / "docs" / "measured" / "pruning.md"
FIGURE = pages.ROOT / "docs" / "images" / "methods.svg"
CURVE = pages.ROOT / "recipes" / "curves" / "easy-vqa.jsonl"
_SIZE = (620.0, 480.0)  # points; every method has its own line and label


def blocks(before: tuple[Path, Results], inside: tuple[Path, Results], easy: tuple[Path, Results]) -> dict[str, str]:
    """Markdown of each block of the page: accuracies and differences of methods before and inside the model, easy-VQA.

    Raises: ValueError when there is no trade-off with differences in one of the results
    """
    return {
        "before": _accuracies(before),
        "before-differences": _differences(before),
        "inside": "\n\n".join([_accuracies(inside), _differences(inside)]),
        "easy-vqa": "\n\n".join([_easy_vqa(easy), _accuracies(easy), _differences(easy)]),
    }


def _easy_vqa(found: tuple[Path, Results]) -> str:
    """Sentences about the training on easy-VQA and the baselines there."""
    view = view_of(found)
    config, whole = view.config, view.full("accuracy")
    assert whole is not None  # all tokens are always measured
    logged = [json.loads(line) for line in CURVE.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in logged if "loss" in line]
    held = [line for line in logged if "held_accuracy" in line and line["step"] == steps[-1]["step"]]
    watched = " and ".join(f"{pages.decimals(line['held_accuracy'])} with {line['cells']} tokens" for line in held)
    kinds = [f"{pages.decimals(value)} of the {kind} questions" for kind, value in _by_kind(view)]
    return (
        f"The tuning took {steps[-1]['step'] + 1} steps, {steps[-1]['cpu_s'] / 60:.0f} minutes of one core. On 100 "
        f"training pictures held out the model answers {watched}. On {config['n_questions']} questions about "
        f"{config['n_pictures']} pictures of the test split it answers **{pages.decimals(whole)} with all tokens; the "
        f"question alone gives {pages.decimals(float(config['question_only_accuracy']))}**, always the commonest "
        f"answer {pages.decimals(float(config['majority_accuracy']))} (both learnt from "
        f"{config.get('baselines_learnt_from', 'training questions')}). It answers {', '.join(kinds)} correctly."
    )


def _by_kind(view: TradeoffData) -> list[tuple[str, float]]:
    """(kind, accuracy) with all tokens, of the kinds that this data has."""
    found = []
    for kind in ("yes_no", "colour", "shape"):
        value = view.full(f"accuracy_{kind}")
        if value is not None:
            found.append((kind.replace("_", "-"), value))
    return found


def view_of(found: tuple[Path, Results]) -> TradeoffData:
    """The trade-off of a results file. Raises: ValueError when it has none with differences from random tokens"""
    source, results = found
    records = results.of_kind(TradeoffRecord)
    if not records or not records[0].differences:
        raise ValueError(f"{source.name} holds no trade-off with differences from random tokens.")
    return TradeoffData(records[0])


def _accuracies(found: tuple[Path, Results]) -> str:
    view = view_of(found)
    config = view.config
    rows = [[title(method), *(_cell(view.at(method, keep)) for keep in view.keeps)] for method in view.methods]
    baselines = [pages.decimals(float(config[f"{name}_accuracy"])) for name in ("question_only", "majority")]
    counted = (
        f"{config['n_questions']} questions about {config['n_pictures']} pictures. The question alone gives "
        f"{baselines[0]}, always the commonest answer {baselines[1]}."
    )
    return "\n".join([counted, "", *pages.table(["method", *(share(keep) for keep in view.keeps)], rows)])


def _cell(point: Point | None) -> str:
    if point is None or point.accuracy is None:
        return "not measured"
    own = point.get("tokens_kept") if point.method == "prumerge" and point.keep < 1 else None
    counted = "" if own is None else f", {own:.0f} tokens"
    known = point.low is not None and point.high is not None
    spread = f" ({pages.decimals(point.low)}–{pages.decimals(point.high)}{counted})" if known else ""
    return pages.decimals(point.accuracy) + spread


def _differences(found: tuple[Path, Results]) -> str:
    """The verdict, the table of differences from random tokens, and the origin of the numbers.

    Raises: ValueError when no method was compared with random tokens
    """
    view = view_of(found)
    verdict = beside_random(view)
    if verdict is None:
        raise ValueError("no method was compared with random tokens in this trade-off.")
    rows = []
    for method in view.methods:
        differences = [view.verdicts.of(method, keep, RANDOM) for keep in view.pruned]
        if any(differences):
            cells = [
                "" if one is None else f"**{interval(one)}**" if one.low <= 0 else interval(one) for one in differences
            ]
            rows.append([title(method), *cells])
    return "\n".join([
        f"**{verdict.lead}** {verdict.text}", "",
        *pages.table(["method", *(share(keep) for keep in view.pruned)], rows), "",
        f"Measured by {pages.origin(found[1], 'salience tradeoff --methods ... --no-costs')}: "
        f"{pages.link(found[0], PAGE)}. Times were not measured in this run.",
    ])  # fmt: skip


def figure(view: TradeoffData) -> str:
    """SVG of accuracy against each method's own token count, with intervals, oracles and controls."""
    import matplotlib

    looks, curves = styles(view.methods), []
    for method in view.methods:
        known = [p for p in view.line(method) if p.accuracy is not None and p.get("tokens_kept")]
        curves.append(
            Curve(
                method=method,
                label=title(method),
                style=looks[method],
                x=tuple(p.get("tokens_kept") or 0.0 for p in known),
                y=tuple(p.accuracy or 0.0 for p in known),
                low=tuple(p.low for p in known),
                high=tuple(p.high for p in known),
            )
        )
    ticks = tuple((tokens, f"{tokens:.0f}\n{share(keep)}") for keep in view.keeps if (tokens := _tokens(view, keep)))
    levels = [("question only", float(view.config["question_only_accuracy"]))]
    with matplotlib.rc_context(RC):
        drawn = lines(
            curves, Scale(label="visual tokens kept (log scale)", ticks=ticks, log=True),
            "answer accuracy, 95% intervals", levels, size=_SIZE,
        )  # fmt: skip
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None})
    return standalone(text.getvalue())


def _tokens(view: TradeoffData, keep: float) -> float | None:
    """Token count of a method that keeps the whole budget."""
    names = [method for method in view.methods if role(method) == "free" and method != "prumerge"]
    return view.value(names[0], keep, "tokens_kept") if names else None


def main() -> None:
    """Rewrite the page and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="methods before the language model")
    parser.add_argument("inside", type=Path, help="methods inside it")
    parser.add_argument("easy", type=Path, help="easy-VQA")
    before, inside, easy = pages.loaded(vars(parser.parse_args()).values())
    for name, text in blocks(before, inside, easy).items():
        pages.fill(PAGE, name, SCRIPT, text)
    write_atomic(FIGURE, figure(view_of(before)))


if __name__ == "__main__":
    main()
