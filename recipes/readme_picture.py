"""Draw the README's picture from a study: one scene with fewer and fewer tokens kept, and the answers.

    .venv/bin/python recipes/readme_picture.py build/study/results.json --example 0 --method saliency

Every panel shows stored results of the study: the kept tokens and the answer.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from salience.core.files import write_atomic
from salience.core.record import TradeoffRecord, load_results
from salience.core.result_tables import Example
from salience.core.types import VisualGrid
from salience.lab.report.kit.method_styles import title
from salience.lab.report.kit.words import share
from salience.vlm.drawing import kept_picture

ROOT = Path(__file__).resolve().parents[1]
WIDEST = 5  # panels: more are too small to see on a page


def panels(example: Example, folder: Path, method: str) -> list[tuple[Image.Image, str, bool]]:
    """(picture, caption, whether the answer is right), from all tokens to the fewest.

    folder: where the path of its picture starts
    Raises: ValueError when the example has no picture, or nothing that the method kept
    """
    cuts = sorted((cut for cut in example.cuts if cut.method == method), key=lambda cut: -cut.keep)
    if example.image is None or not cuts:
        raise ValueError(f"the example shows nothing that {method!r} kept.")
    picture = Image.open(folder / example.image).convert("RGB")
    grid = VisualGrid(rows=example.grid[0], columns=example.grid[1])
    full = f"all {grid.n} tokens: {example.full_answer}"
    found = [(picture, full, example.full_answer == example.answer)]
    for cut in cuts[-(WIDEST - 1) :]:
        caption = f"{share(cut.keep)}, {len(cut.kept)} token{'s' * (len(cut.kept) != 1)}: {cut.answer}"
        found.append((kept_picture(picture, grid, cut.kept), caption, cut.answer == example.answer))
    return found


def draw(example: Example, folder: Path, method: str) -> bytes:
    """The panels side by side under the question, as a PNG that reads on light and dark pages alike."""
    from matplotlib.figure import Figure

    row = panels(example, folder, method)
    figure = Figure(figsize=(2.6 * len(row), 3.15), dpi=130, facecolor="white")
    figure.suptitle(f"“{example.question}”", fontsize=15, y=0.985)
    for axes, (picture, caption, right) in zip(figure.subplots(1, len(row), squeeze=False)[0], row, strict=True):
        axes.imshow(picture)
        axes.set_axis_off()
        mark, colour = ("✓", "#1a7f37") if right else ("✗", "#b3261e")
        axes.set_title(f"{caption} {mark}", y=-0.14, fontsize=11, color=colour)
    figure.text(0.995, 0.97, f"kept by {title(method)}", ha="right", va="top", fontsize=9, color="#57606a")
    figure.subplots_adjust(left=0.005, right=0.995, top=0.885, bottom=0.1, wspace=0.03)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def main() -> None:
    """Write docs/images/keep.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--example", type=int, default=0)
    parser.add_argument("--method", default="saliency")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images" / "keep.png")
    arguments = parser.parse_args()
    results = load_results(arguments.results)
    example = results.of_kind(TradeoffRecord)[0].examples[arguments.example]
    write_atomic(arguments.to, draw(example, results.folder, arguments.method))


if __name__ == "__main__":
    main()
