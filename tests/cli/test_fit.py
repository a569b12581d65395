"""`salience fit`: a scorer folder comes out, nothing half-written stays, and nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from salience.lab.train import checkpoint

from .conftest import Ran

Run = Callable[..., Ran]
SMALL = ("--quick", "--pictures", "4", "--steps", "8")


@pytest.fixture
def fit(salience: Run, tiny_vlm: Path) -> Run:
    """`salience fit --model TINY --quick --pictures 4 --steps 8 ...`"""
    return lambda *more: salience("fit", "--model", tiny_vlm, *SMALL, *more)


def test_a_fitted_scorer_loads_and_is_found_beside_its_model(
    salience: Run, tiny_vlm: Path, picture: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_vlm, tmp_path / "model")
    ran = salience("fit", "--model", model, *SMALL, "--out", model / "salience", "--json")
    assert ran.code == 0
    (record,) = json.loads(ran.out)["records"]
    assert record["kind"] == "fit" and record["config"]["quick"] is True
    assert record["rows"][0]["d_features"] == 24
    assert sorted(path.name for path in (model / "salience").iterdir()) == ["config.json", "model.safetensors"]
    asked = salience("ask", picture, "which digit is red?", "--model", model, "--json")
    assert asked.code == 0
    assert json.loads(asked.out)["records"][0]["rows"][1]["method"] == "saliency"


def test_the_same_seed_gives_the_same_scorer(fit: Run, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert fit("--out", tmp_path / name, "--seed", seed).code == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_folder_with_other_files_is_refused_and_left_alone(fit: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    ran = fit("--out", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "thesis.txt" in ran.err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_out_that_cannot_be_written_is_refused_before_any_work(salience: Run, picture: Path, tmp_path: Path) -> None:
    for out in (picture, picture / "below"):
        ran = salience("fit", "--model", tmp_path / "nowhere", "--out", out)
        assert (ran.code, ran.out) == (2, "")
        assert "Error: --out" in ran.err


def test_an_unknown_objective_is_refused(fit: Run, tmp_path: Path) -> None:
    ran = fit("--objective", "fame", "--out", tmp_path / "scorer")
    assert (ran.code, ran.out) == (2, "")
    assert "attention" in ran.err and "fame" in ran.err
    assert not (tmp_path / "scorer").exists()


# A shell starts background jobs with SIGINT ignored, and what they start inherits that: the command must hear it.
HEARING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from salience.cli.main import main; main()"
)


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written_and_exits_130(tiny_vlm: Path, tmp_path: Path) -> None:
    out = tmp_path / "scorer"
    command = [sys.executable, "-c", HEARING, "fit", "--model", tiny_vlm, "--quick", "--steps", "200000"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--out", out], stderr=pipe, stdout=pipe) as process:
        saved = tmp_path / ".scorer.unfinished" / checkpoint.NAME
        patience = time.monotonic() + 240  # seconds; a few are enough where nothing else runs
        while not saved.exists() and process.poll() is None and time.monotonic() < patience:
            time.sleep(0.1)
        begun = saved.exists()
        os.kill(process.pid, signal.SIGINT)
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()  # nothing, once it has ended; else leaving the block would wait for 200,000 steps
    assert begun, "no checkpoint was written"
    assert process.returncode == 130, stderr.decode()
    assert stdout == b""
    assert b"Traceback" not in stderr
    assert not out.exists()
    assert list(tmp_path.rglob("*.tmp")) == []
