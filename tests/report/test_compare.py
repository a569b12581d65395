"""The chapter of a comparison: its words come from its numbers, its figures are drawn, its lines are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salience.report import write_report
from salience.report.compare_chapter import compare_chapter
from salience.report.load import load_results


def document() -> dict[str, Any]:
    """Made-up numbers that measure nothing: two directions, two seeds, three epochs."""
    final = {"mamba": 0.7, "bimamba": 0.95}
    rows = [
        {
            "model": model, "seed": seed, "epoch": epoch, "train_loss": 2 / epoch, "test_loss": 2.1 / epoch,
            "test_accuracy": accuracy - 0.1 * (3 - epoch) + 0.01 * seed, "parameters": 1234, "train_tokens_per_s": 9e3,
        }
        for model, accuracy in final.items() for seed in (0, 1) for epoch in (1, 2, 3)
    ]  # fmt: skip
    about = {"parameters": 1234, "train_tokens_per_s": 9e3, "seeds": 2, "diverged": 0}
    record = {
        "kind": "compare", "rows": rows,
        "config": {"task": "digit-tagging", "length": 140, "majority_accuracy": 0.11, "chance_accuracy": 0.1,
                   "epochs": 3, "seeds": 2},
        "final": [{"model": model, "forwards": model == "mamba", "accuracy": value, "accuracy_low": value - 0.02,
                   "accuracy_high": value + 0.02, **about} for model, value in final.items()],
        "tests": [{"first": "mamba", "second": "bimamba", "difference": -0.25, "low": -0.27, "high": -0.23,
                   "p_holm": 1e-12, "seeds_agree": True}],
        "throughput": [{"model": model, "length": length, "tokens_per_s": 1e5, "peak_bytes": 1e6}
                       for model in final for length in (256, 512)],
        "control": [{"model": "mamba", "accuracy": 0.5, "accuracy_low": 0.48, "accuracy_high": 0.52}],
        "diverged": [{"model": "mamba", "seed": 1, "said": "training diverged at step 3."}], "longer": [],
    }  # fmt: skip
    return {"schema": 1, "environment": {}, "records": [record]}


def test_words_come_from_numbers(tmp_path: Path) -> None:
    (record,) = load_results(document(), tmp_path).records
    found = compare_chapter(record, tmp_path, 0)
    assert found.answer.startswith("Accuracy after the last epoch: bimamba 0.95, mamba 0.70. Always")
    assert found.epochs_title == "Training loss and test accuracy, causal and non-causal, 3 epochs"
    assert found.tests == ["bimamba is ahead of mamba by 25 points (95% interval 23.0 to 27.0, p below 0.001)."]
    assert found.failures[0] == "mamba, seed 1: training diverged at step 3."
    assert "ABOVE the majority line" in found.failures[1]


def test_figures_have_the_lines_of_no_knowledge(tmp_path: Path) -> None:
    page = write_report(document(), tmp_path).read_text()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"compare_{n}.{e}" for n in ("train_loss", "test_accuracy", "throughput", "memory")
                     for e in ("svg", "png")}  # fmt: skip
    assert "majority 0.11" in page and "chance 0.10" in page
    assert "majority" not in (tmp_path / "figures" / "compare_train_loss.svg").read_text()
