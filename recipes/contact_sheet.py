"""Draw sample pictures of each split, with a question and its answer: docs/images/contact_sheet.jpg."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

from salience.lab import data

ROOT = Path(__file__).resolve().parents[1]
ACROSS = 5


def main() -> None:
    figure, rows = plt.subplots(3, ACROSS, figsize=(13, 8.8), layout="constrained")
    for row, split in zip(rows, ("train", "val", "test"), strict=True):
        for axes, sample in zip(row, data.load("scenes", split=split, n=ACROSS, seed=1), strict=True):
            axes.imshow(sample.image)
            axes.set_title(f"{sample.question} {sample.answer}", fontsize=9)
            axes.axis("off")
        row[0].text(-0.04, 0.5, split, rotation=90, va="center", ha="right", transform=row[0].transAxes)
    target = ROOT / "docs" / "images" / "contact_sheet.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=80, pil_kwargs={"quality": 85})
    print(target.relative_to(ROOT))


if __name__ == "__main__":
    main()
