"""Every class that AutoModelForImageTextToText knows equals the masked sequence when pruned, or is refused at once."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.vlm.families import adapter_for
from salience.vlm.methods.fastv import FastV

ROOT = Path(__file__).resolve().parents[2]


def _sweep() -> Any:
    spec = importlib.util.spec_from_file_location("every_class", Path(__file__).parents[1] / "every_class.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    return module


sweep = _sweep()

# Classes whose own calls with pictures fail in a release, without pruning, and the error that they raise.
FAILS = {("llama4", "5.24.0"): AttributeError}

# All tokens of a picture are one code of a random codebook.
BLIND = ("chameleon",)

# Before the language model, and inside it: (method, keep).
BEFORE = [("uniform", 1.0), ("uniform", 0.5), ("random", 0.5), ("divprune", 0.5), ("saliency", 0.5)]
INSIDE = ["fastv", "pyramiddrop", "sparsevlm"]

FOUND: dict[tuple[str, str], str] = {}  # by class and what was tried, for the page's test


@pytest.fixture
def note(kind: str, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`note(part, outcome)`: "works", or the sentence of a refusal, for the page's table."""

    def add(part: str, outcome: str) -> None:
        request.node.user_properties.append(("every class", (kind, part, outcome)))
        FOUND[kind, part] = outcome

    return add


@pytest.fixture(scope="module", params=sweep.model_types())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(kind: str) -> Any:
    """The tiny model, or why it can't be built."""
    try:
        return sweep.build(kind)
    except ImportError as error:
        return f"not built here: {str(error).strip().partition(' but')[0]}."


@pytest.fixture
def model(built: Any, note: Any, request: pytest.FixtureRequest) -> Any:
    if isinstance(built, str):
        for part in ("before", "attention", "inside"):
            note(part, built)
        pytest.skip(built)
    return built


def refusal(model: Any, method: Any) -> str:
    """The sentence that `prune` refuses with, empty if it doesn't."""
    try:
        salience.prune(model, method, keep=0.5).undo()
    except ValueError as error:
        return str(error)
    return ""


def batch(model: Any, kind: str) -> Any:
    given = sweep.tiny_batch(model)
    if error := FAILS.get((kind, version("transformers"))):
        with pytest.raises(error):
            model(**given)
        pytest.skip(f"{kind} fails by itself with this release")
    return given


def told(model: Any, reason: str) -> str:
    """A refusal in words that several classes and methods share; "works" if there is none."""
    named = re.sub(r"known family \(.*?\)", "known family", reason).replace(type(model).__name__, "...")
    named = re.sub(r"(which|of type|method) (\w+ does|'[^']*')", _nameless, named)
    return named or "works"


def _nameless(found: re.Match[str]) -> str:
    return f"{found[1]} ... does" if found[2].endswith(" does") else f"{found[1]} '...'"


def is_a_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text


def test_attention_of_the_vision_tower(model: Any, kind: str, note: Any) -> None:
    reason = refusal(model, "cls-attention")
    note("attention", told(model, reason))
    if reason:
        assert is_a_sentence(reason)
        return
    check({"cls-attention": sweep.outcome(model, batch(model, kind), "cls-attention", 0.5)})


def check(found: dict[str, str]) -> None:
    bad = {name: text for name, text in found.items() if text != "works" and not text.startswith("refused: ")}
    assert all(is_a_sentence(text) for name, text in found.items() if text.startswith("refused: "))
    assert not bad


def test_before_the_language_model(model: Any, kind: str, note: Any) -> None:
    reason = refusal(model, "uniform")
    note("before", told(model, reason))
    if reason:
        assert is_a_sentence(reason)
        return
    given = batch(model, kind)
    found = {}
    for name, keep in BEFORE:
        torch.manual_seed(3)
        method = salience.Scorer(adapter_for(model).d_features) if name == "saliency" else name
        found[f"{name} {keep}"] = sweep.outcome(model, given, method, keep)
    check(found)
    assert sweep.blind(model, given) == (kind in BLIND)


def test_inside_the_language_model(model: Any, kind: str, note: Any, in_llm_oracle: Any) -> None:
    method = {"fastv": FastV(layer=1)}
    reasons = [reason for name in INSIDE if (reason := refusal(model, method.get(name, name)))]
    note("inside", told(model, reasons[0] if reasons else ""))
    assert all(map(is_a_sentence, reasons))
    if len(reasons) == len(INSIDE):
        return
    given = batch(model, kind)
    check({
        name: sweep.outcome(model, given, method.get(name, name), 0.5, inside=in_llm_oracle) for name in INSIDE
    })  # fmt: skip


def test_windows_narrower_than_the_prompt(built: Any, kind: str) -> None:
    if isinstance(built, str):
        pytest.skip(built)
    model = sweep.with_window(sweep.build(kind))
    if model is None:
        return  # no layer has one
    if reason := refusal(model, "uniform"):
        assert is_a_sentence(reason)
        return
    given = batch(model, kind)
    check({f"uniform {keep}": sweep.outcome(model, given, "uniform", keep) for keep in (1.0, 0.5)})


def test_compact_positions_where_generate_counts_anew(model: Any, kind: str) -> None:
    if "use positions='compact'" not in refusal(model, "uniform"):
        return
    given = batch(model, kind)
    check({f"uniform {keep}": sweep.outcome(model, given, "uniform", keep, compact=True) for keep in (1.0, 0.5)})


def test_the_page_says_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    release = version("transformers")
    if len(FOUND) < 3 * len(sweep.model_types()) or f"transformers {release}" not in page:
        pytest.skip("not all of them ran, or with another release than the page's")
    spec = importlib.util.spec_from_file_location("families_table", ROOT / "recipes" / "families_table.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(ROOT / "recipes")  # for its helper module
    spec.loader.exec_module(recipe)
    assert recipe.every_class(FOUND) in page, "python recipes/families_table.py writes it anew"
