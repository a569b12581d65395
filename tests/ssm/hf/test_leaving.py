"""What is put on a model comes off again, and nothing else is touched."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.ssm.hf.fused import Fused


def everything(model: Any) -> list[dict[str, Any]]:
    return [dict(module.__dict__) for module in model.modules()]


@torch.no_grad()
def test_undone_is_as_before(model: Any, ids: Any, logits: Any) -> None:
    tokens, before = ids(2, 9), everything(model)
    wanted = logits(model, tokens)
    handle = salience.fuse(model)
    assert everything(model) != before
    logits(model, tokens)
    handle.undo()
    handle.undo()
    assert everything(model) == before
    assert torch.equal(logits(model, tokens), wanted)
    with salience.fuse(model):  # and once more
        logits(model, tokens)
    assert everything(model) == before


def test_leaving_after_an_exception(model: Any, ids: Any, logits: Any) -> None:
    before = everything(model)
    with pytest.raises(RuntimeError, match="on purpose"), salience.fuse(model):
        logits(model, ids(1, 3))
        raise RuntimeError("on purpose")
    assert everything(model) == before


@torch.no_grad()
def test_only_this_model_is_touched(kind: str, build: Any, ids: Any, logits: Any) -> None:
    model, other = build(kind), build(kind)
    mixer = next(module for module in other.modules() if type(module).__name__.endswith("Mixer"))
    module = sys.modules[type(mixer).__module__]
    kept, known = dict(vars(type(mixer))), dict(vars(module))
    wanted = logits(other, ids(2, 5))
    with salience.fuse(model):
        assert vars(type(mixer)) == kept and vars(module) == known
        assert torch.equal(logits(other, ids(2, 5)), wanted)


def test_what_the_handle_says(model: Any) -> None:
    handle = salience.fuse(model)
    mixers = [name for name, module in model.named_modules() if type(module).__name__.endswith("Mixer")]
    assert list(handle.layers) == mixers
    kind = type(model.get_submodule(mixers[0])).__name__
    assert repr(handle) == f"Fused({len(mixers)} x {kind})"
    handle.undo()
    assert repr(handle) == f"Fused({len(mixers)} x {kind}, undone)"
    with pytest.raises(ValueError, match="this fusion has been undone"), handle:
        pass


@torch.no_grad()
def test_the_head_goes_along(model: Any, ids: Any, logits: Any, near: Any) -> None:
    wanted = logits(model, ids(1, 1))
    with salience.fuse(model) as handle:
        head = model.lm_head.forward
        assert "lm_head" not in handle.layers
        near(logits(model, ids(1, 1)), wanted)
    assert "forward" not in model.lm_head.__dict__
    x = torch.randn(1, 20)
    assert torch.equal(head(x), model.lm_head(x))  # somebody kept it: torch's again


@torch.no_grad()
def test_a_head_that_somebody_replaced_stays_theirs(model: Any, ids: Any, logits: Any, near: Any) -> None:
    calls, own = [], model.lm_head.forward

    def forward(x: torch.Tensor) -> Any:
        calls.append(1)
        return own(x)

    model.lm_head.forward = forward
    wanted = logits(model, ids(1, 1))
    with salience.fuse(model):
        near(logits(model, ids(1, 1)), wanted)
    assert len(calls) == 2 and model.lm_head.forward is forward


@torch.no_grad()
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_are_fused_and_stand_alone(model: Any, ids: Any, logits: Any, near: Any, how: str) -> None:
    tokens = ids(2, 9)
    handle = salience.fuse(model)
    wanted = logits(model, tokens)
    twin = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    handle.undo()
    plain = logits(model, tokens)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(logits(twin, tokens), wanted)  # fused, with weights of its own
    assert Fused.of(twin).layers == handle.layers
    with pytest.raises(ValueError, match="fused already"):
        salience.fuse(twin)
    Fused.of(twin).undo()
    assert torch.equal(logits(twin, tokens), plain)
    with pytest.raises(ValueError, match="in which nothing is fused"):
        Fused.of(twin)


def test_saving_writes_the_same_files(model: Any, tmp_path: Path, ids: Any, logits: Any) -> None:
    model.save_pretrained(tmp_path / "plain")
    with salience.fuse(model):
        model.save_pretrained(tmp_path / "fused")
        wanted = logits(model, ids(2, 5))
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "fused").iterdir())
    for name in names:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "fused" / name).read_bytes()
    loaded = type(model).from_pretrained(tmp_path / "fused")
    with salience.fuse(loaded):
        assert torch.equal(logits(loaded, ids(2, 5)), wanted)


@torch.no_grad()
def test_a_fused_model_can_be_converted(model: Any, ids: Any, logits: Any, near: Any) -> None:
    tokens, exact = ids(2, 5), copy.deepcopy(model).double()
    with salience.fuse(model):
        near(logits(model.double(), tokens), logits(exact, tokens), 1e-6)  # A is in float32 in transformers


@torch.no_grad()
def test_somebody_wrapped_it_meanwhile(build: Any, ids: Any, logits: Any) -> None:
    model, tokens, calls = build("mamba"), ids(1, 4), []
    wanted = logits(model, tokens)
    mixer = model.backbone.layers[0].mixer
    handle = salience.fuse(model)
    inner = mixer.forward

    @functools.wraps(inner.__call__)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return inner(*args, **kwargs)

    mixer.forward = wrapper
    handle.undo()
    assert mixer.forward is wrapper
    assert torch.equal(logits(model, tokens), wanted) and calls == [1]


def test_the_name_works_whatever_was_imported_first() -> None:
    for first in (
        "import salience.ssm.hf.fused",
        "from salience.ssm.hf.fused import Fused",
        "import salience; salience.fuse",
    ):
        code = f"{first}\nimport salience\ntry:\n    salience.fuse(3)\nexcept ValueError as error:\n    print(error)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "model must be a transformers model, not an int."
