"""A user's table or text: what is read, what is refused, and that no group, copy or stretch is in two splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salience.lab.data.sequences import load
from salience.lab.data.sequences.tasks.own_sequences import SPLITS, Row, _deal
from salience.lab.data.sequences.tasks.own_text import deal, windows


def _csv(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return f"csv:{path}"


def test_a_table_of_numbers(tmp_path: Path) -> None:
    lines = ["a,label,b,c", *(f"{n},{'up' if n % 2 else 'down'},{n * n},3" for n in range(40))]
    task = load(_csv(tmp_path / "own.csv", lines))
    assert (task.kind, task.input_kind, task.length, task.classes) == ("classify", "scalar", 3, ("down", "up"))
    assert (len(task.train), len(task.val), len(task.test)) == (32, 4, 4)
    again, other = load(f"csv:{tmp_path / 'own.csv'}"), load(f"csv:{tmp_path / 'own.csv'}", seed=1)
    assert torch.equal(task.test.batch(torch.arange(4)).inputs, again.test.batch(torch.arange(4)).inputs)
    assert not torch.equal(task.test.batch(torch.arange(4)).inputs, other.test.batch(torch.arange(4)).inputs)
    values = task.train.batch(torch.arange(32)).inputs
    assert abs(float(values.mean())) < 1e-5 and float(values.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_the_file_may_say_the_splits(tmp_path: Path) -> None:
    lines = ["label,split,x"] + [f"{'ab'[n % 2]},{SPLITS[n % 3]},{n}" for n in range(12)]
    task = load(_csv(tmp_path / "own.csv", lines))
    assert len(task.train) == len(task.val) == len(task.test) == 4
    assert task.test.batch(torch.arange(4)).targets.tolist() == [0, 1, 0, 1]


def _jsonl(path: Path, rows: list[object]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return f"csv:{path}"


def test_lines_of_json_with_different_lengths_and_widths(tmp_path: Path) -> None:
    rows: list[object] = [{"sequence": [[k, n] for k in range(1 + n % 3)], "label": n % 2} for n in range(30)]
    task = load(_jsonl(tmp_path / "own.jsonl", rows))
    assert (task.input_kind, task.d_input, task.length) == ("patch", 2, 3)
    batch = task.train.batch(torch.arange(24))
    assert batch.mask is not None and batch.mask.sum(1).min() == 1


def test_strings_are_read_as_bytes(tmp_path: Path) -> None:
    rows: list[object] = [{"sequence": f"né{n}", "label": "ab"[n % 2]} for n in range(30)]
    task = load(_jsonl(tmp_path / "own.jsonl", rows))
    assert (task.input_kind, task.vocabulary, task.d_input) == ("token", 256, 0)
    row = task.train.batch(torch.tensor([0])).inputs[0].tolist()
    assert bytes(row).decode().startswith("né")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=60), st.integers(0, 3))
def test_a_group_and_equal_rows_stay_together(drawn: list[tuple[int, int]], seed: int) -> None:
    rows = [
        Row(
            values=np.asarray([[content]], dtype=np.float32), label="a", split="", group=str(group or ""), where=str(at)
        )
        for at, (content, group) in enumerate(drawn)
    ]
    found = _deal(rows, seed)
    assert sorted(row.where for split in found.values() for row in split) == sorted(row.where for row in rows)
    for key in (lambda row: row.values.tobytes(), lambda row: row.group):
        homes = [{key(row) for row in split if key(row)} for split in found.values()]
        assert not (homes[0] & homes[1]) and not (homes[0] & homes[2]) and not (homes[1] & homes[2])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,b", "1,2"], "has no column 'label' in its first line; its columns are a, b"),
        (["label", "x"], "has no column besides label"),
        (["label,a,b", "x,1,2", "y,1"], "line 3: 2 cells, but the header has 3"),
        (["label,a", "x,1", ",2"], "line 3: the label is missing"),
        (["label,a", "x,one"], "line 2: 'one' is not a number"),
        (["label,a", "x,nan"], "line 2: 'nan' is not a finite number"),
        (["label,a,split", "x,1,dev"], "split must be one of train, val, test, not 'dev'"),
        (["label,a,split", "x,1,train", "y,2,"], "'split' must be given in every row or in none"),
        (["label,a,split", "x,1,train", "y,2,train"], "no row is in the val split"),
        (["label,a,split,group", "x,1,train,p", "y,2,train,q", "x,1,val,p", "x,3,test,r"], "group 'p' is in train and"),
        (["label,a,split", "x,1,train", "y,2,train", "x,1,val", "z,3,test"], "no training row has the label 'z'"),
        (["label,a", *(f"x,{n}" for n in range(30))], "have the one label 'x'"),
        (["label,a"], "holds no sequence"),
        (["label,a,b", "x,1,2", 'y,"1', "z,1,2"], "line 3: a cell begins with a double quote that is never closed"),
        (["label,a,b", "x,1,2,3"], "line 2: 4 cells, but the header has 3"),
        ([",label,a", *(f"{n},{'xy'[n % 2]},{n}" for n in range(30))], "column 1 has no name; .*pandas' index"),
        (["Unnamed: 0,label,a", *(f"{n},{'xy'[n % 2]},{n}" for n in range(30))], "column 1 has no name"),
        (["label,a,a", "x,1,2"], "the columns 'a' and 'a' are one"),
        (["label;a", "x;1,5"], "line 2: '1,5' is not a number; decimals need a point"),
        (["label,a", "x,1_0"], "line 2: '1_0' is not a number"),
        (["label,a", "x,1e39"], "line 2: '1e39' is not a finite number in float32"),
        (["label,a", "1,1", "1.0,2"], "line 3: the label '1.0' is '1' in line 2"),
        (["label,a", "1,1", "2,2", "nan,3"], "line 4: the label is missing .it is nan"),
    ],
)
def test_a_bad_table_is_told_in_one_sentence(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        load(_csv(tmp_path / "own.csv", lines))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"label": 1}, "an object with 'sequence' and 'label' is needed"),
        ({"sequence": [1]}, "the label is missing"),
        ({"sequence": [], "label": 1}, "the sequence is empty"),
        ({"sequence": [[1], [1, 2]], "label": 1}, "steps of different widths"),
        ({"sequence": 5, "label": 1}, "must be a list or a string, not int"),
        ({"sequence": [None], "label": 1}, "None is not a number"),
        ({"sequence": "text", "label": 1}, "of another kind or width"),
        ({"sequence": [1, 2], "label": float("nan")}, "line 2: the label is missing .it is nan"),
        ({"sequence": [1, 2], "label": [1]}, "the label must be text or a number, not list"),
        ({"sequence": [1, 2], "label": 0.0}, "the label '0.0' is '0' in line 1"),
        ({"sequence": [1, 2], "label": 1, "group": float("nan")}, "the group is missing"),
        ({"sequence": [True, 2], "label": 1}, "True is not a number"),
        ({"sequence": [10**400, 2], "label": 1}, "is not a number"),
    ],
)
def test_a_bad_line_of_json_is_told(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(_jsonl(tmp_path / "own.jsonl", [{"sequence": [1, 2], "label": 0}, row]))
    (tmp_path / "own.jsonl").write_text("{")
    with pytest.raises(ValueError, match="row 1 is no JSON"):
        load(f"csv:{tmp_path / 'own.jsonl'}")


def test_tables_as_programs_write_them(tmp_path: Path) -> None:
    lines = ["Label;A;B", *(f"{'ab'[n % 2]};{n};{n * n}" for n in range(30))]
    for coding in ("utf-8-sig", "utf-16"):
        (tmp_path / "own.csv").write_bytes("\r\n".join(lines).encode(coding))
        task = load(f"csv:{tmp_path / 'own.csv'}")
        assert (task.length, task.classes, len(task.train)) == (2, ("a", "b"), 24)
    rows = [{"Sequence": f"a\u2028b\u0085{n}", "label": n % 2} for n in range(30)]
    (tmp_path / "own.JSONL").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8-sig"
    )
    assert len(load(f"csv:{tmp_path / 'own.JSONL'}").train) == 24
    (tmp_path / "own.json").write_text(json.dumps(rows))
    assert len(load(f"csv:{tmp_path / 'own.json'}").train) == 24
    (tmp_path / "own.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match="save it as 'CSV UTF-8'"):
        load(f"csv:{tmp_path / 'own.xlsx'}")


def test_an_empty_cell_does_not_shift_a_series(tmp_path: Path) -> None:
    for name in ("S_TRAIN.tsv", "S_TEST.tsv"):
        (tmp_path / name).write_text("1\t0.5\t0.6\t0.7\n2\t0.5\t\t0.7\n")
    with pytest.raises(ValueError, match="line 2"):
        load(f"timeseries:name=S,folder={tmp_path}")


def test_next_bytes_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hidden.txt").write_text("hidden " * 500)
    for n in range(3):
        (tmp_path / f"{n}.txt").write_text(f"text number {n} " * 400)
    (tmp_path / "copy.md").write_text("text number 0 " * 400)  # the same again counts once
    task = load(f"text:{tmp_path}", length=32)
    assert (task.kind, task.n_classes, task.vocabulary) == ("next-token", 256, 256)
    assert task.source.startswith("3 text(s), the end of each file")
    batch = task.train.batch(torch.arange(4))
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert bytes(batch.inputs[0].tolist()) == b"text number 0 text number 0 text"
    assert abs(task.majority - 3 / 14) < 0.01  # three spaces in fourteen bytes; the windows' edges shift it a little


def test_windows_cover_a_stretch_without_overlap() -> None:
    batch = windows([bytes(range(11)), b"short"], 5).batch(torch.arange(2))
    assert batch.inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] and batch.targets[1].tolist() == [6, 7, 8, 9, 10]


def test_many_files_are_dealt_out_whole() -> None:
    texts = [str(n).encode() * 50 for n in range(25)]
    found = deal(texts)
    assert sorted(t for part in found.values() for t in part) == sorted(texts)
    assert [len(found[split]) for split in SPLITS] == [19, 3, 3]


def test_too_little_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a few words")
    with pytest.raises(ValueError, match="none of more than 256 bytes; more text or a smaller length is needed"):
        load(f"text:{tmp_path / 'a.txt'}")
    (tmp_path / "a.txt").write_text("a few words", encoding="utf-16")
    with pytest.raises(ValueError, match=r"is in UTF-16, .* save it in UTF-8"):
        load(f"text:{tmp_path / 'a.txt'}")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="are empty"):
        load(f"text:{tmp_path}")
    (tmp_path / "a.txt").rename(tmp_path / "a.bin")
    with pytest.raises(ValueError, match="no text file"):
        load(f"text:{tmp_path}")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("cafe\u0301", "looks like"), ("caf\u00e9\u200b", "looks like"), ("#N/A", "a formula that failed"),
    ],
)  # fmt: skip
def test_two_labels_that_look_alike_are_no_two_classes(label: str, said: str, tmp_path: Path) -> None:
    drinks = "tea", "caf\u00e9"
    lines = ["label,x", *(f"{drinks[n % 2]},{n}" for n in range(40)), f"{label},41"]
    with pytest.raises(ValueError, match=f"line 42: .*{said}"):
        load(_csv(tmp_path / "own.csv", lines))


@pytest.mark.parametrize("gap", ["NA", "N/A", "None", "nan"])
def test_a_gap_among_labels_that_are_numbers_is_no_class(gap: str, tmp_path: Path) -> None:
    lines = ["label,x", *(f"{n % 2},{n}" for n in range(40)), f"{gap},41"]
    with pytest.raises(ValueError, match=f"line 42: the label is missing \\(it is {gap}"):
        load(_csv(tmp_path / "own.csv", lines))


def test_values_far_from_zero_keep_their_differences(tmp_path: Path) -> None:
    """Seconds since 1970 differ in digits that float32 does not have, and a constant channel beside them stays one."""

    def inputs(start: int) -> torch.Tensor:
        rows: list[object] = [
            {"label": n % 2, "split": SPLITS[n % 3], "sequence": [[start + n, 0.1], [start + n + 5, 0.1]]}
            for n in range(30)
        ]
        return load(_jsonl(tmp_path / "own.jsonl", rows)).train.batch(torch.arange(10)).inputs

    # both are exact up to one rounding to float32; values are of the order of one
    assert torch.allclose(inputs(1_700_000_000), inputs(0), rtol=0, atol=1e-6)
    assert float(inputs(0)[..., 1].abs().max()) < 1e-6
