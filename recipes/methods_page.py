"""Write docs/methods.md and docs/images/methods.svg, all methods side by side, from trade-offs' results.

cd benchmarks/results
../../.venv/bin/python ../../recipes/methods_page.py methods_*.json methods-inside_*.json easy-vqa_*.json
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from salience.core.files import write_atomic
from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.method_styles import role, styles, title
from salience.lab.report.kit.panel import RC, Curve, Scale, lines
from salience.lab.report.kit.svg import standalone
from salience.lab.report.kit.words import share
from salience.lab.report.load import Results, load_results
from salience.lab.report.tradeoff.rankings import beside_random
from salience.lab.report.tradeoff.series import Point, View
from salience.lab.report.tradeoff.verdicts import RANDOM

ROOT = Path(__file__).resolve().parents[1]
PAGE, FIGURE = ROOT / "docs" / "methods.md", ROOT / "docs" / "images" / "methods.svg"
CURVE = ROOT / "recipes" / "curves" / "easy-vqa.jsonl"
_BRACKETS = "In brackets the points by which accuracy differs on the same questions, 95 % intervals over pictures."
_SIZE = (620.0, 480.0)  # points; every method has its own line and label


def page(
    results: Results, source: str, inside: tuple[Results, str] | None = None, easy: tuple[Results, str] | None = None
) -> str:
    """The Markdown: accuracies, the figure, differences from random tokens, and where the numbers come from.

    Raises: ValueError when there is no trade-off with differences in the results
    """
    view = _view(results, source)
    config, verdict = view.config, _verdict(view)
    baselines = (
        f"{config['question_only_accuracy']:.3f} from the question alone, {config['majority_accuracy']:.3f} for "
    )
    return "\n".join([
        "# All methods side by side", "",
        "Accuracy of the bundled model at a share of its visual tokens, with 95 % intervals over pictures (widened to "
        f"hold every seed): {config['n_questions']} questions about {config['n_pictures']} pictures. For comparison: "
        f"{baselines}always the commonest answer. `oracle` is told where the items are, `untrained` is a scorer of "
        "random weights: a reference and a control. This is one small model that knows coloured digits; which method "
        "is best on another model this does not say.", "",
        *_accuracies(view), "",
        "![Accuracy against the visual tokens kept, a line for each method](images/methods.svg)", "",
        "## Against random tokens", "",
        f"**{verdict.lead}** {verdict.text} {_BRACKETS}", "",
        "Points of accuracy above the mean of the random draws on the same questions, 95 % bootstrap intervals over "
        "pictures, not corrected for their number; bold where the interval holds zero or lies below it.", "",
        *_differences(view), "",
        *_origin(results, source),
        *_oracle(),
        *(_inside(*inside) if inside else ()),
        *(_easy_vqa(*easy) if easy else ()),
        "Written by `python recipes/methods_page.py`; not to be edited.",
        "",
    ])  # fmt: skip


def _oracle() -> list[str]:
    """Why the oracle is no bound at 14 tokens; the figures are what recipes/oracle_tokens.py printed."""
    return [
        "## Why DivPrune passes the oracle at 14 tokens", "",
        "No item is starved: 14 tokens are 2.2 an item, every item has at least one. On 288 questions about 24 of the "
        "pictures the oracle comes to .799 and DivPrune to .896, with 46 % of its tokens on items. **What the oracle "
        "lacks is background.** Its first ten tokens and four from places without an item come to .875; its fourteen "
        "and six such tokens *of another picture* to .851, so that it is not what those tokens say: a language model "
        "that was trained on whole pictures reads items with nothing around them badly. DivPrune's own tokens on "
        "items, alone, come to .674. The rest is the order within a box: neighbours in its middle say much the same, "
        "and the 14 cells on items that are least alike come to .858 without any background. So the oracle is no "
        "bound. Measured once, with `python recipes/oracle_tokens.py`.", "",
    ]  # fmt: skip


def _inside(results: Results, source: str) -> list[str]:
    """The section about methods that work inside the model, measured apart since each question is asked alone."""
    view = _view(results, source)
    verdict = _verdict(view)
    return [
        "## Methods inside the model", "",
        "FastV, PyramidDrop and SparseVLM drop tokens between the language model's layers, and their ratio is what is "
        "left behind the last stage: the layers before it see more, so at one ratio they cost more than the methods "
        "above. They also read the question, which those do not. ToMe merges inside the tower. Each question goes "
        f"through `generate`, so this was measured on fewer: {view.config['n_questions']} questions about "
        f"{view.config['n_pictures']} of the pictures.", "",
        *_accuracies(view), "",
        f"**{verdict.lead}** {verdict.text} {_BRACKETS}", "",
        *_differences(view), "",
        *_origin(results, source),
    ]  # fmt: skip


def _easy_vqa(results: Results, source: str) -> list[str]:
    """The section about somebody else's benchmark, with what the model was trained on there and its blind line."""
    view = _view(results, source)
    verdict = _verdict(view)
    config, whole = view.config, view.full("accuracy")
    assert whole is not None  # all tokens are always measured
    lines = [json.loads(line) for line in CURVE.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    held = [line for line in lines if "held_accuracy" in line and line["step"] == steps[-1]["step"]]
    watched = " and ".join(f"{_short(line['held_accuracy'])} with {line['cells']} tokens" for line in held)
    kinds = [f"{_short(value)} of the {kind} questions" for kind, value in _by_kind(view)]
    blind = float(config["question_only_accuracy"])
    return [
        "## easy-VQA", "",
        "Somebody else's benchmark (the package `easy-vqa`): one coloured shape on a picture of 64 x 64 pixels, 13 "
        "answers. `recipes/tune_easy_vqa.py` tunes the bundled model's projector and language model on the questions "
        f"about 900 of its training pictures, {steps[-1]['step'] + 1} steps in {steps[-1]['cpu_s'] / 60:.0f} minutes "
        "of one core's time; the vision tower stays as it was trained, on digits. On 100 training pictures held out it "
        f"answers {watched}. Nothing was chosen on them or on the test split.", "",
        f"On {config['n_questions']} questions about {config['n_pictures']} pictures of the test split: "
        f"**{_short(whole)} with all tokens, {_short(blind)} from the question alone**, "
        f"{_short(float(config['majority_accuracy']))} for "
        f"always the commonest answer (both learnt from {config.get('baselines_learnt_from', 'training questions')}). "
        f"It answers {', '.join(kinds)} rightly. The training is short, and shape is barely learnt: a third would be "
        "right by chance. The learned saliency is the bundled scorer, fitted on digits, which never saw such a "
        "picture. "
        "Training dropped tokens uniformly at random, so random tokens and the grid are what this model is used to, "
        "which the choices of the other methods are not; and one large shape is easily hit by chance.", "",
        *_accuracies(view), "",
        f"**{verdict.lead}** {verdict.text} {_BRACKETS}", "",
        *_differences(view), "",
        *_origin(results, source),
    ]  # fmt: skip


def _by_kind(view: View) -> list[tuple[str, float]]:
    """(kind, accuracy) with all tokens, of the kinds that this data has."""
    found = []
    for kind in ("yes_no", "colour", "shape"):
        value = view.full(f"accuracy_{kind}")
        if value is not None:
            found.append((kind.replace("_", "-"), value))
    return found


def _origin(results: Results, source: str) -> list[str]:
    found = results.environment
    return [
        f"`salience tradeoff --methods ... --no-costs` on {found.get('cpu') or found.get('device')} "
        f"({str(found.get('date'))[:10]}, commit `{str(found.get('commit'))[:12]}`, torch {found.get('torch')}, "
        f"transformers {found.get('transformers')}): [`{source}`](../{source}). Times were not measured in this run.",
        "",
    ]  # fmt: skip


def _view(results: Results, source: str) -> View:
    records = results.of_kind("tradeoff")
    if not records or not records[0].extra.get("differences"):
        raise ValueError(f"{source} holds no trade-off with differences from random tokens.")
    return View(records[0])


def _verdict(view: View) -> Finding:
    """Every method beside random tokens. Raises: ValueError where none was held against them."""
    found = beside_random(view)
    if found is None:
        raise ValueError("no method was held against random tokens in this trade-off.")
    return found


def _accuracies(view: View) -> list[str]:
    rows = [["method", *(share(keep) for keep in view.keeps)], ["---"] * (len(view.keeps) + 1)]
    for method in view.methods:
        rows.append([title(method), *(_cell(view.at(method, keep)) for keep in view.keeps)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(point: Point | None) -> str:
    if point is None or point.accuracy is None:
        return "not measured"
    own = point.get("tokens_kept") if point.method == "prumerge" and point.keep < 1 else None
    counted = "" if own is None else f", {own:.0f} tokens"
    spread = "" if point.low is None or point.high is None else f" ({_short(point.low)}–{_short(point.high)}{counted})"
    return _short(point.accuracy) + spread


def _short(accuracy: float) -> str:
    return f"{accuracy:.3f}".removeprefix("0")


def _differences(view: View) -> list[str]:
    rows = [["method", *(share(keep) for keep in view.pruned)], ["---"] * (len(view.pruned) + 1)]
    for method in view.methods:
        lines = [view.verdicts.of(method, keep, RANDOM) for keep in view.pruned]
        if not any(lines):
            continue
        cells = []
        for line in lines:
            text = "" if line is None else line.written
            cells.append(f"**{text}**" if line is not None and line.low <= 0 else text)
        rows.append([title(method), *cells])
    return [f"| {' | '.join(row)} |" for row in rows]


def figure(view: View) -> str:
    """The SVG: every method against its own tokens, with intervals; oracles and controls too."""
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


def _tokens(view: View, keep: float) -> float | None:
    """Of a method that keeps the whole budget."""
    names = [method for method in view.methods if role(method) == "free" and method != "prumerge"]
    return view.value(names[0], keep, "tokens_kept") if names else None


def main() -> None:
    """Rewrite both files of this repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("inside", type=Path, nargs="?", help="of the methods that work inside the model")
    parser.add_argument("easy", type=Path, nargs="?", help="of easy-VQA")
    given = parser.parse_args()
    results, source = loaded(given.results)
    inside, easy = (loaded(path) if path else None for path in (given.inside, given.easy))
    write_atomic(PAGE, page(results, source, inside, easy))
    write_atomic(FIGURE, figure(_view(results, source)))


def loaded(path: Path) -> tuple[Results, str]:
    """The results, and their file's place below the repository."""
    path = path.resolve()
    return load_results(path, path.parent), str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


if __name__ == "__main__":
    main()
