"""`salience compare`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ran

Run = Callable[..., Ran]


def test_writes_three_things_and_prints_the_document(salience: Run, tmp_path: Path) -> None:
    ran = salience("compare", "--task", "digits49", "--models", "mamba,B", "--quick", "--json", "--out", tmp_path)
    assert ran.code == 0
    assert json.loads(ran.out) == json.loads((tmp_path / "results.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "results.json", "figures"}
    config = json.loads(ran.out)["records"][0]["config"]
    assert config["command"] == "salience compare --task digits49 --models mamba,B --quick" and config["quick"]


def test_the_printed_table_has_the_unit_of_what_was_measured(salience: Run, tmp_path: Path) -> None:
    ran = salience(
        "compare", "--task", "digits49:train=32,test=16", "--models", "mamba", "--seeds", 1, "--epochs", 1,
        "--width", 8, "--no-timing", "--out", tmp_path,
    )  # fmt: skip
    assert ran.code == 0 and "tokens/s" in ran.out and "steps/s" not in ran.out


def test_list_shows_tasks_and_models(salience: Run) -> None:
    ran = salience("compare", "--list")
    assert ran.code == 0 and "selective-copying" in ran.out and "bimamba" in ran.out and "csv:PATH" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "digit-taging"), "did you mean digit-tagging?"),
        (("--models", "mambo"), "did you mean mamba?"),
        (("--models", "MXA"), "unknown letter 'X'"),
        (("--seeds", "0"), "seeds must be a whole number of at least 1, not 0."),
    ],
)
def test_bad_input_is_one_sentence(salience: Run, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = salience("compare", *arguments, "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and said in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b,label\n1,2,x\n1,2\n", "line 3"), ("a,b,label\n1,2,x\n1,2,\n", "the label is missing")],
)
def test_a_bad_table_is_told_with_its_line(salience: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.csv").write_text(text)
    ran = salience("compare", "--task", f"csv:{tmp_path / 'own.csv'}", "--out", tmp_path / "out")
    assert ran.code == 2 and said in ran.err and not (tmp_path / "out").exists()
