"""Every class that AutoModelForImageTextToText knows equals the masked sequence when pruned, or is refused at once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.families import adapter_for
from salience.pruning.methods.fastv import FastV


def _sweep() -> Any:
    spec = importlib.util.spec_from_file_location("every_class", Path(__file__).parents[1] / "every_class.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    return module


sweep = _sweep()

# What is known not to hold yet, and why: such a class may work by now, others must.
MENDING: dict[str, str] = {}

# All tokens of a picture are one code of a random codebook.
BLIND = ("chameleon",)

# Before the language model, and inside it: (method, keep).
BEFORE = [("uniform", 1.0), ("uniform", 0.5), ("random", 0.5), ("divprune", 0.5), ("saliency", 0.5)]
INSIDE = ["fastv", "pyramiddrop", "sparsevlm"]


@pytest.fixture(scope="module", params=sweep.model_types())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str) -> Any:
    try:
        return sweep.build(kind)
    except ImportError as error:
        pytest.skip(f"can't be built here: {str(error).strip().splitlines()[0]}")


def refusal(model: Any, method: Any) -> str:
    """The sentence that `prune` refuses with, empty if it doesn't."""
    try:
        salience.prune(model, method, keep=0.5).undo()
    except ValueError as error:
        return str(error)
    return ""


def batch(model: Any, kind: str) -> Any:
    try:
        return sweep.tiny_batch(model)
    except ValueError as error:
        if kind in MENDING:
            pytest.xfail(f"{MENDING[kind]}: {error}")
        raise


def is_a_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text


def check(kind: str, found: dict[str, str]) -> None:
    bad = {name: text for name, text in found.items() if text != "works" and not text.startswith("refused: ")}
    assert all(is_a_sentence(text) for name, text in found.items() if text.startswith("refused: "))
    if bad and kind in MENDING:
        pytest.xfail(f"{MENDING[kind]}: {bad}")
    assert not bad


def test_before_the_language_model(model: Any, kind: str) -> None:
    if reason := refusal(model, "uniform"):
        assert is_a_sentence(reason)
        return
    given = batch(model, kind)
    found = {}
    for name, keep in BEFORE:
        torch.manual_seed(3)
        method = salience.Scorer(adapter_for(model).d_features) if name == "saliency" else name
        found[f"{name} {keep}"] = sweep.outcome(model, given, method, keep)
    check(kind, found)
    assert sweep.blind(model, given) == (kind in BLIND)


def test_inside_the_language_model(model: Any, kind: str, inside_oracle: Any) -> None:
    method = {"fastv": FastV(layer=1)}
    if all(reasons := [refusal(model, method.get(name, name)) for name in INSIDE]):
        assert all(map(is_a_sentence, reasons))
        return
    given = batch(model, kind)
    check(kind, {
        name: sweep.outcome(model, given, method.get(name, name), 0.5, inside=inside_oracle) for name in INSIDE
    })  # fmt: skip


def test_windows_narrower_than_the_prompt(kind: str) -> None:
    try:
        model = sweep.with_window(sweep.build(kind))
    except ImportError as error:
        pytest.skip(f"can't be built here: {str(error).strip().splitlines()[0]}")
    if model is None:
        return  # no layer has one
    if reason := refusal(model, "uniform"):
        assert is_a_sentence(reason)
        return
    given = batch(model, kind)
    check(kind, {f"uniform {keep}": sweep.outcome(model, given, "uniform", keep) for keep in (1.0, 0.5)})
