"""Bounds of tested releases: the sentence of a refusal, and what `pyproject.toml` declares."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
import torch

from salience.core import backend
from salience.core.backend import NUMBA, explain


@pytest.mark.parametrize("version", ["0.60.1", "0.69.0", "0.70.0rc1", "1.0"])
def test_the_cpu_backend_refuses_an_untested_numba(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda package: version)
    monkeypatch.delenv(NUMBA.variable, raising=False)
    backend._choose.cache_clear()
    x = torch.zeros(2)
    sentence = (
        rf"numba {version} was not tested with this salience, 0\.61 to 0\.68 were.*pip install 'numba>=0\.61,<0\.69'"
    )
    for name in ("auto", "cpu"):
        with pytest.raises(RuntimeError, match=sentence):
            explain("selective_scan", x, backend=name)
    assert explain("selective_scan", x, backend="reference").backend == "reference"
    monkeypatch.setenv(NUMBA.variable, "1")
    assert explain("selective_scan", x, backend="cpu").backend == "cpu"
    backend._choose.cache_clear()


@pytest.mark.parametrize("version", ["0.61.0", "0.68.1", "0.68.9rc1", ""])
def test_tested_and_unknown_releases_pass(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NUMBA.variable, raising=False)
    assert NUMBA.refusal(version) is None


def test_the_package_declares_the_tested_releases_of_numba() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [need for need in project["dependencies"] if need.startswith("numba")] == ["numba>=0.61,<0.69"]


def test_triton_is_called_experimental() -> None:
    choice = backend.Choice(op="selective_scan", backend="triton", why="backend asks for it")
    assert str(choice).startswith(
        "selective_scan takes the backend 'triton' (experimental: no run on a GPU is recorded)"
    )
