"""Methods of one's own named "module:Class"."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.lab.profile.profile_config import ProfileConfig
from salience.lab.tradeoff.config import TradeoffConfig, named_inside
from salience.vlm.methods.registry import is_class_path, method_class

OWN = '''
import torch
import salience
from salience.vlm.methods.in_llm_method import InLLMMethod


class Last(salience.Method):
    """The tokens at the end."""

    name = "last"

    def score(self, ctx):
        return torch.arange(ctx.features.shape[0]).float()


class Sized(Last):
    def __init__(self, size, *, side):
        pass


class Late(InLLMMethod):
    name = "late"

    def drops(self, depth):
        return (1,)


class Plain:
    pass


number = 3
'''


@pytest.fixture
def own_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)
    return "own_methods"


@pytest.mark.parametrize(("name", "is_path"), [
    ("own:Last", True), ("a.b_c:D1", True), ("fastv", False), ("owner/name", False), (":Last", False), ("own:", False),
    ("C:\\scorer", False), ("a:b:c", False), ("a..b:C", False), (3, False),
])  # fmt: skip
def test_which_names_are_class_paths(name: object, is_path: bool) -> None:
    assert is_class_path(name) is is_path


@torch.no_grad()
def test_prunes_by_it(model: Any, make_batch: Any, own_methods: str) -> None:
    with salience.prune(model, f"{own_methods}:Last", keep=0.25) as pruned:
        model(**make_batch([1]))
    assert pruned.method.name == "last"
    assert pruned.trace.images[0].kept.tolist() == [12, 13, 14, 15]


def test_other_commands_take_it(own_methods: str) -> None:
    last, late = f"{own_methods}:Last", f"{own_methods}:Late"
    config = TradeoffConfig(methods=("uniform", last, late))
    assert config.methods == ("uniform", last, late)
    assert [named_inside(name) for name in config.methods] == [False, False, True]
    inside = ProfileConfig(method=late).in_llm
    assert inside is not None and inside.drops(2) == (1,)
    with pytest.raises(ValueError, match="an InLLMMethod of your own as 'module:Class', or None"):
        ProfileConfig(method=last)


@pytest.mark.parametrize(("path", "sentence"), [
    ("absent_module:Last", "there is no module 'absent_module' on Python's search path"),
    ("own_methods.deeper:Last", "there is no module 'own_methods.deeper'"),
    ("own_methods:Lost", r"module 'own_methods' \(.*own_methods.py\) has no class 'Lost' \(did you mean 'Last'\?\)"),
    ("own_methods:Plain", "must name a subclass of salience.Method, not <class 'own_methods.Plain'>"),
    ("own_methods:number", "must name a subclass of salience.Method, not 3"),
    ("own_methods:Sized", r"needs arguments \(size, side\), which a name can't give: name a subclass with defaults"),
    ("broken_methods:Last", r"importing 'broken_methods' fails with ModuleNotFoundError \(No module named 'absent_too"),
])  # fmt: skip
def test_says_what_is_wrong(own_methods: str, tmp_path: Path, path: str, sentence: str) -> None:
    (tmp_path / "broken_methods.py").write_text("import absent_too.part\n")
    for ask in (method_class, lambda path: TradeoffConfig(methods=(path,))):
        with pytest.raises(ValueError, match=sentence) as caught:
            ask(path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"method {path!r}")
