"""`--method module:Class`: a method of one's own from the current folder, in every command that takes one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ran

Run = Callable[..., Ran]
OWN = """
import torch
import salience
from salience.vlm.methods.in_llm_method import InLLMMethod

class Last(salience.Method):
    name = "last"
    def score(self, ctx):
        return torch.arange(ctx.features.shape[0]).float()

class Late(InLLMMethod):
    name = "late"
    def drops(self, depth):
        return (1,)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module that Python's path does not reach."""
    (tmp_path / "methods_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.delitem(sys.modules, "methods_here", raising=False)
    return tmp_path


def test_ask(salience: Run, folder: Path, tiny_vlm: Path, picture: Path) -> None:
    ran = salience(
        "ask", picture, "which digit is red?", "--model", tiny_vlm, "--method", "methods_here:Last", "--json"
    )
    assert ran.code == 0, ran.err
    pruned = json.loads(ran.out)["records"][0]["rows"][1]
    assert (pruned["method"], pruned["kept"]) == ("last", [12, 13, 14, 15])


def test_tradeoff(salience: Run, folder: Path, tiny_vlm: Path) -> None:
    methods = "methods_here:Last,methods_here:Late,uniform"
    ran = salience(
        "tradeoff", "--model", tiny_vlm, "--methods", methods, "--keep", ".5", "--pictures", "2", "--questions", "2",
        "--probe", "0", "--samples", "0", "--no-costs", "--out", folder / "out", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert {row["method"] for row in json.loads(ran.out)["records"][0]["rows"]} == set(methods.split(","))


def test_profile(salience: Run, folder: Path, tiny_vlm: Path) -> None:
    ran = salience("profile", tiny_vlm, "--device", "meta", "--keep", "1,.5", "--method", "methods_here:Late", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["records"][0]["config"]["method"] == "late"


def test_nothing_else_is_importable_from_the_current_folder(folder: Path, salience: Run, picture: Path) -> None:
    before = list(sys.path)
    assert salience("ask", picture, "?", "--method", "uniform", "--keep", "2").code == 2
    assert sys.path == before


def test_from_the_installed_command(folder: Path, picture: Path, tiny_vlm: Path) -> None:
    """Unlike `python -m salience`, it does not search the current folder by itself."""
    code = "from salience.cli.main import main; main()"
    arguments = ["ask", str(picture), "which digit is red?", "--model", str(tiny_vlm), "--method", "methods_here:Lost"]
    path = os.pathsep.join(place for place in sys.path if place)
    found = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert found.returncode == 2
    assert "Error: method 'methods_here:Lost': module 'methods_here'" in found.stderr
    assert "has no class 'Lost' (did you mean 'Last'?)." in found.stderr
