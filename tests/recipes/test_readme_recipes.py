"""The README's table and picture come from a results document, number by number."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT
from PIL import Image
from readme_picture import draw, panels
from readme_table import table

from salience.core.record import Results, load_results
from salience.core.result_rows import ROW_COLUMNS


def row(method: str, keep: float, accuracy: float, prefill_ms: float) -> dict[str, Any]:
    """A row of which only these columns were measured."""
    measured = {"method": method, "keep": keep, "tokens_kept": round(576 * keep), "seed": 0, "accuracy": accuracy}
    spread = {"accuracy_low": accuracy - 0.01, "accuracy_high": accuracy + 0.02, "prefill_ms": prefill_ms}
    return dict.fromkeys(ROW_COLUMNS["tradeoff"]) | measured | spread


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A made-up study: two methods at two ratios, one example on a 2 x 2 grid."""
    Image.new("RGB", (40, 40), (200, 100, 50)).save(tmp_path / "sample.png")
    cut = {"method": "saliency", "keep": 0.25, "kept": [2], "answer": "3"}
    asked = {"question": "which?", "answer": "7", "full_answer": "7"}
    example = {"image": "sample.png", "grid": [2, 2], "cuts": [cut], **asked}
    config = {"model": "m", "task": "scenes", "n_visual_tokens": 576, "n_questions": 80, "n_pictures": 10}
    config |= {"question_only_accuracy": 0.21, "majority_accuracy": 0.125}
    accuracies = {("saliency", 1.0): 0.9, ("saliency", 0.25): 0.8, ("random", 1.0): 0.9, ("random", 0.25): 0.5}
    rows = [row(method, keep, accuracy, 40.0 * keep) for (method, keep), accuracy in accuracies.items()]
    record = {"kind": "tradeoff", "config": config, "rows": rows, "examples": [example]}
    environment = {"cpu": "made-up", "threads": 2, "date": "2026-01-02T03:04:05", "commit": "abc", "torch": "9"}
    (tmp_path / "results.json").write_text(json.dumps({"schema": 1, "environment": environment, "records": [record]}))
    return load_results(tmp_path / "results.json", tmp_path)


def test_the_table_holds_the_numbers_and_where_they_come_from(results: Results) -> None:
    text = table(results, ROOT / "benchmarks/results/x.json")
    assert "| 25% (144) | .800 (.790–.820) | .500 (.490–.520) | 4.0× | not measured | not measured |" in text
    assert text.splitlines()[2].startswith("| 100% (576) | .900 (.890–.920) | .900 (.890–.920) | 1.0×")
    for words in ("80 questions", "10 pictures", ".210", ".125", "made-up", "2026-01-02", "`abc`", "x.json"):
        assert words in text


def test_a_quick_run_is_no_measurement(results: Results) -> None:
    results.records[0].config["quick"] = True  # type: ignore[index]
    with pytest.raises(ValueError, match="quick"):
        table(results, ROOT / "x.json")


def test_the_picture_shows_what_was_kept_and_answered(results: Results) -> None:
    example = results.records[0].examples[0]
    (whole, full, right), (kept, cut, wrong) = panels(example, results.folder, "saliency")
    assert (full, right) == ("all 4 tokens: 7", True)
    assert (cut, wrong) == ("25%, 1 token: 3", False)
    assert kept.getpixel((10, 30)) == whole.getpixel((10, 30)) == (200, 100, 50)
    assert max(kept.getpixel((30, 10))) < 100  # type: ignore[arg-type]
    assert Image.open(io.BytesIO(draw(example, results.folder, "saliency"))).format == "PNG"


def test_a_method_that_kept_nothing_is_refused(results: Results) -> None:
    with pytest.raises(ValueError, match="telepathy"):
        panels(results.records[0].examples[0], results.folder, "telepathy")
