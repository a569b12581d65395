"""`salience tradeoff` and `salience study` on a tiny random model: what they write and print, and what they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import salience as package

from .conftest import Ran

Run = Callable[..., Ran]
SMALL = ("--quick", "--pictures", "3", "--questions", "4")


@pytest.fixture(scope="module")
def measured(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished trade-off's folder, and a scorer that was compared in it."""
    from salience.cli.main import run

    folder = tmp_path_factory.mktemp("tradeoff")
    package.Scorer(24).save_pretrained(folder / "scorer")
    arguments = ["--model", str(tiny_vlm), "--scorer", str(folder / "scorer"), *SMALL, "--keep", ".25"]
    methods = ["--method", "saliency", "--method", "random"]
    assert run(["tradeoff", *arguments, *methods, "--out", str(folder / "out")]) == 0
    return folder / "out", folder / "scorer"


def test_writes_the_three_things_and_leaves_nothing_else(measured: tuple[Path, Path]) -> None:
    out, _ = measured
    assert {path.name for path in out.iterdir()} == {"report.html", "results.json", "figures"}
    assert any((out / "figures").iterdir())
    page = (out / "report.html").read_text()
    assert "<html" in page and "</html>" in page


def test_compares_what_was_named(measured: tuple[Path, Path], tiny_vlm: Path) -> None:
    (record,) = json.loads((measured[0] / "results.json").read_text())["records"]
    assert {row["method"] for row in record["rows"]} == {"saliency", "random"}
    assert {row["keep"] for row in record["rows"]} == {1.0, 0.25}
    assert {row["tokens_kept"] for row in record["rows"]} == {16, 4}
    assert record["config"]["model"] == str(tiny_vlm)
    assert record["config"]["n_pictures"] == 3


def test_json_is_the_document_and_nothing_else(salience: Run, tiny_vlm: Path, tmp_path: Path) -> None:
    ran = salience(
        "tradeoff", "--model", tiny_vlm, *SMALL, "--method", "uniform", "--keep", ".5", "--json", "--out", tmp_path
    )
    assert ran.code == 0
    assert json.loads(ran.out) == json.loads((tmp_path / "results.json").read_text())


def test_a_quality_run_leaves_times_and_probe_null_and_takes_lists(
    salience: Run, tiny_vlm: Path, tmp_path: Path
) -> None:
    ran = salience(
        "tradeoff", "--model", tiny_vlm, *SMALL, "--methods", "uniform,random", "--keep", "1,.5", "--no-costs",
        "--probe", "0", "--samples", "0", "--out", tmp_path,
    )  # fmt: skip
    assert ran.code == 0
    document = json.loads((tmp_path / "results.json").read_text())
    (record,) = document["records"]
    assert record["config"]["quick"] is True  # the report makes no headline of it
    assert document["environment"]["floor_spread"] >= 1 and "busy_because" in document["environment"]
    assert [line["against"] for line in record["blind_differences"]] == ["question only", "majority answer"]
    assert {line["kind"] for line in record["kind_differences"]} <= {"digit_of_colour", "colour_of_digit", "is_there",
                                                                    "count", "relation"}  # fmt: skip
    assert {(row["method"], row["keep"]) for row in record["rows"]} == {
        (method, keep) for method in ("uniform", "random") for keep in (1.0, 0.5)
    }
    for row in record["rows"]:
        assert row["prefill_ms"] is None and row["flops_total"] is None and row["probe_accuracy"] is None
        assert row["tokens_kept"] == (16 if row["keep"] == 1 else 8)
    assert {(line["method"], line["against"]) for line in record["differences"]} == {
        ("uniform", "random"), ("uniform", "all tokens"), ("random", "all tokens"),
    }  # fmt: skip
    assert record["examples"] == []


def folder_of(root: Path, picture: Path, count: int = 3) -> Path:
    """Questions with choices about copies of one picture."""
    rows = []
    for number in range(count):
        shutil.copy(picture, root / f"{number}.png")
        row = {"image": f"{number}.png", "question": "which digit is red ?", "answer": "yes", "choices": ["yes", "no"]}
        rows += [row, {**row, "question": "is there a red 7 ?", "answers": ["no"] * 6 + ["yes"] * 4}]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_a_folder_of_ones_own(salience: Run, tiny_vlm: Path, tmp_path: Path, picture: Path) -> None:
    task = f"vqa:{folder_of(tmp_path, picture)}"
    base = (
        "tradeoff",
        "--model",
        tiny_vlm,
        "--task",
        task,
        "--methods",
        "uniform,pyramiddrop",
        "--keep",
        ".5",
        "--no-costs",
    )
    assert salience(*base, "--questions", "2", "--out", tmp_path / "out").code == 0
    (record,) = json.loads((tmp_path / "out" / "results.json").read_text())["records"]
    assert record["config"]["layout"] == "table"
    # The other pictures' majority is yes and, of the second question, no: vqa_accuracy of six of ten who agree is 1.
    assert record["config"]["majority_accuracy"] == pytest.approx(0.5 * (1 + 1))
    assert record["config"]["question_only_accuracy"] == 1
    assert {(row["method"], row["keep"], row["tokens_kept"]) for row in record["rows"]} == {
        ("uniform", 1.0, 16), ("uniform", 0.5, 8), ("pyramiddrop", 1.0, 16), ("pyramiddrop", 0.5, 8),
    }  # fmt: skip
    for row in record["rows"]:
        assert row["loglikelihood_accuracy"] is not None and row["vqa_accuracy"] is not None
        assert row["probe_accuracy"] is None and row["first_token_ms"] is None


def test_a_picture_that_cannot_be_read_names_its_row(
    salience: Run, tiny_vlm: Path, tmp_path: Path, picture: Path
) -> None:
    root = folder_of(tmp_path, picture)
    (root / "1.png").write_bytes(picture.read_bytes()[:900])
    base = ("tradeoff", "--model", tiny_vlm, "--method", "uniform", "--out", tmp_path / "out", "--task", f"vqa:{root}")
    refused(salience(*base), "rows.jsonl, row 3", "cut off")
    (root / "1.png").unlink()
    refused(salience(*base), "rows.jsonl, row 3", "there is no file")
    shutil.copy(picture, root / "1.png")
    refused(salience(*base, "--method", "fastv"), "2 layers")  # told before any question is asked
    refused(salience(*base[:-1], "vqa:"), "task must be")
    refused(salience(*base[:-1], "vqa:nowhere"), "no folder or file nowhere")


def refused(ran: Ran, *words: str) -> None:
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err


def test_bad_input_is_refused_before_any_work(salience: Run, tiny_vlm: Path, tmp_path: Path, picture: Path) -> None:
    base = ("tradeoff", "--model", tiny_vlm, "--out", tmp_path / "out")
    for keep in ("0", "1.2", "nan"):
        refused(salience(*base, "--keep", keep), "keep", keep)
    refused(salience(*base, "--keep", ","), "--keep", "no value")
    refused(salience(*base, "--methods", ""), "--methods", "no value")
    refused(salience(*base, "--method", "telepathy"), "telepathy", "random")
    refused(salience(*base, "--method", "divprun"), "did you mean 'divprune'")
    refused(salience(*base, "--keep", ".5,half"), "--keep", "half")
    refused(salience(*base, "--scorer", tmp_path / "none"), "none")
    refused(salience(*base, "--device", "cuda:99"), "cuda:99")
    refused(salience(*base, "--method", "saliency", *SMALL), "salience fit")
    refused(salience("tradeoff", "--model", tmp_path / "nowhere", "--out", picture), "--out", "can't be written")
    refused(salience("study", "--out", picture / "below"), "--out", "can't be written")


def test_help_names_the_ratios_that_are_measured(salience: Run) -> None:
    from salience.lab.study.config import StudyConfig

    keeps = ",".join(f"{keep:g}".removeprefix("0") for keep in StudyConfig.of().tradeoff.keeps)
    assert f"[default: {keeps}]" in " ".join(salience("tradeoff", "--help").out.split())


def test_a_scorer_of_the_wrong_width_is_refused(salience: Run, tiny_vlm: Path, tmp_path: Path) -> None:
    package.Scorer(10).save_pretrained(tmp_path / "narrow")
    ran = salience("tradeoff", "--model", tiny_vlm, *SMALL, "--scorer", tmp_path / "narrow", "--out", tmp_path / "out")
    refused(ran, "10", "24")


def test_a_scorer_of_another_tower_is_refused(salience: Run, tiny_vlm: Path, tmp_path: Path) -> None:
    package.Scorer(24, model={"family": "llava", "sample": [1.0]}).save_pretrained(tmp_path / "theirs")
    ran = salience("tradeoff", "--model", tiny_vlm, *SMALL, "--scorer", tmp_path / "theirs", "--out", tmp_path / "out")
    refused(ran, "another vision tower", "salience fit")


def test_an_installation_without_the_bundled_model_says_so(
    salience: Run, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "bundled_model", lambda: tmp_path / "nothing")
    monkeypatch.setattr("salience.lab.study.run.bundled_model", lambda: tmp_path / "nothing")
    refused(salience("study", "--out", tmp_path / "out"), "bundled model is missing")
    refused(salience("ask", picture, "which digit is red?"), "bundled model is missing", "--model")


@pytest.mark.slow
def test_the_study_fits_compares_and_reports(
    salience: Run, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "bundled_model", lambda: tiny_vlm)
    monkeypatch.setattr("salience.lab.study.run.bundled_model", lambda: tiny_vlm)
    ran = salience("study", "--quick", "--out", tmp_path / "study")
    assert ran.code == 0
    assert "report.html" in ran.out and "accuracy" in ran.out
    assert {"report.html", "results.json", "figures"} <= {path.name for path in (tmp_path / "study").iterdir()}
    document = json.loads((tmp_path / "study" / "results.json").read_text())
    assert {"saliency", "random", "uniform"} <= {row["method"] for row in document["records"][0]["rows"]}
