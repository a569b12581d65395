"""Draw the training curves that the recipes logged: recipes/curves/*.jsonl -> docs/images/curves.png."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
SHOWN = {
    "tower": ("vision tower: share of a patch's labels told right", {"acc_digit": "digit", "acc_colour": "colour"}),
    "language": (
        "language model on described scenes: answers right",
        {"acc_digit": "digit", "acc_count": "count", "acc_relation": "relation", "acc_exists": "is there"},
    ),
    "tune": (
        "instruction tuning: answers right",
        {"acc_digit": "digit", "acc_count": "count", "acc_relation": "relation", "acc_exists": "is there"},
    ),
}


def _lines(name: str) -> list[dict[str, Any]]:
    """Logged steps in order; steps that a resumed run repeated count once."""
    steps: dict[tuple[Any, int], dict[str, Any]] = {}
    for text in (ROOT / "recipes" / "curves" / f"{name}.jsonl").read_text().splitlines():
        line = json.loads(text)
        if "step" in line and line["stage"] != "align":
            steps[(line["stage"], line["step"])] = line
    return [steps[key] for key in sorted(steps)]


def _draw(axes: Axes, name: str) -> None:
    title, columns = SHOWN[name]
    lines = _lines(name)
    for column, label in columns.items():
        values = [line.get(column, float("nan")) for line in lines]
        smooth = [sum(values[max(0, i - 2) : i + 1]) / len(values[max(0, i - 2) : i + 1]) for i in range(len(values))]
        axes.plot(smooth, label=label, linewidth=1.4)
    for n, (before, after) in enumerate(itertools.pairwise(lines)):
        if before["stage"] != after["stage"]:
            axes.axvline(n + 0.5, color="0.7", linewidth=0.8)
    axes.set(title=title, ylim=(0, 1.02), xlabel="logged step, stages parted by lines")
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def main() -> None:
    figure, panels = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for axes, name in zip(panels, SHOWN, strict=True):
        _draw(axes, name)
    target = ROOT / "docs" / "images" / "curves.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    print(target.relative_to(ROOT))


if __name__ == "__main__":
    main()
