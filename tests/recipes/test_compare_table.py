"""The table of sequence models comes from results documents, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compare_table import table
from pages import ROOT

from salience.core.record import load_results


def document() -> dict[str, Any]:
    """Made-up numbers: a model forwards, the same both ways, and one that diverged."""
    common = {"d_model": 8, "n_layers": 2, "seeds": 3, "parameters": 1234, "train_tokens_per_s": 1000.0}
    reached = (("mamba", "M", 0.7), ("bimamba", "B", 0.95))
    final = [
        {"model": name, "pattern": pattern, "forwards": pattern == "M", "accuracy": value, "accuracy_low": value - 0.01,
         "accuracy_high": value + 0.02, **common} for name, pattern, value in reached
    ]  # fmt: skip
    final.append({"model": "lstm", "pattern": "L", "forwards": True, "accuracy": None, "seeds": 0})
    rows = [
        {"model": line["model"], "seed": 0, "epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": None,
         "parameters": 1234, "train_tokens_per_s": 1000.0} for line in final
    ]  # fmt: skip
    config = {
        "task": "digit-tagging", "length": 140, "majority_accuracy": 0.111, "chance_accuracy": 0.1, "epochs": 5,
        "train_examples": 2000, "seeds": 3, "processes": 2, "threads": 1, "command": "salience compare --task T",
    }  # fmt: skip
    tests = [{"first": "mamba", "second": "bimamba", "difference": -0.25, "low": -0.27, "high": -0.23, "p_holm": 1e-12,
              "seeds_agree": True}]  # fmt: skip
    control = [{"model": "mamba", "accuracy": 0.115, "accuracy_low": 0.1, "accuracy_high": 0.12}]
    record = {"kind": "compare", "config": config, "rows": rows, "final": final, "tests": tests, "control": control}
    about = {"cpu": "made-up", "date": "2026-01-02T03:04:05", "commit": "abc", "torch": "9"}
    return {"schema": 1, "environment": about, "records": [record]}


def test_the_table_holds_the_numbers_and_where_they_come_from() -> None:
    text = table([(ROOT / "benchmarks/results/x.json", load_results(document(), Path()))])
    lines = text.splitlines()
    assert lines[2] == "| digit-tagging | mamba | .700 (.690–.720) | .111 | 3 × 5 | 1,234 | 23 min |"  # 1.4e6 / 1000 s
    assert lines[3].startswith("| digit-tagging | bimamba, both ways | .950 (.940–.970) |")
    assert lines[4] == "| digit-tagging | lstm | diverged | .111 | 0 × 5 | – | – |"
    for words in (
        "`salience compare --task T` (made-up, 2026-01-02, 2 at a time, 1 thread each, commit `abc`, torch 9)",
        "bimamba is ahead of mamba by 25 points (95% interval 23.0 to 27.0, p below 0.001).",
        "The control with shuffled labels passes.", "[`benchmarks/results/x.json`](../../benchmarks/results/x.json)",
    ):  # fmt: skip
        assert words in lines[-1]


def test_a_quick_run_and_a_document_without_comparisons_are_refused() -> None:
    quick = document()
    quick["records"][0]["config"]["quick"] = True
    with pytest.raises(ValueError, match=r"x\.json is of a quick run"):
        table([(ROOT / "x.json", load_results(quick, Path()))])
    other = {"schema": 1, "environment": {}, "records": [{"kind": "profile", "config": {}, "rows": []}]}
    with pytest.raises(ValueError, match="holds no comparison"):
        table([(ROOT / "x.json", load_results(other, Path()))])
