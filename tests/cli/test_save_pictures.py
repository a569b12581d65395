"""`salience tradeoff --save-pictures` as a person runs it on a folder of their own pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from .conftest import Ran


def test_contact_sheets_of_a_folder_of_one_s_own(salience: Callable[..., Ran], tiny_vlm: Path, tmp_path: Path) -> None:
    """One sheet a picture, a row a method asked for; the report and the results are there beside them."""
    rows = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (56, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "which digit is red?", "answer": str(number)})
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["tradeoff", "--model", tiny_vlm, "--task", f"vqa:{tmp_path}", "--methods", "uniform,divprune,visionzip"]
    ran = salience(
        *line, "--keep", ".5,.25", "--no-costs", "--save-pictures", "2", "--quick", "--out", tmp_path / "out"
    )
    assert ran.code == 0, ran.err
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out" / "pictures").iterdir())
    assert names == ["pictures/picture_0.png", "pictures/picture_1.png"]
    sheets = []
    for name in names:
        with Image.open(tmp_path / "out" / name) as sheet:
            sheets.append(np.asarray(sheet))
    assert all(height > 3 * 240 and width > 2 * 240 for height, width, _ in (s.shape for s in sheets))
    assert sheets[0].shape == sheets[1].shape and (sheets[0] != sheets[1]).any()
    assert {"report.html", "results.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
