"""`Pruned.of`: the handle in force on a model, also where the caller has lost it."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch

import salience


def test_a_lost_handle_is_found_and_undone(make_model: Any, make_batch: Any, photograph: Any) -> None:
    model, batch = make_model(), make_batch([1])
    before = photograph(model)
    assert salience.Pruned.of(model) is None
    salience.prune(model, "uniform", tokens=4)
    gc.collect()
    with pytest.raises(ValueError, match=r"already being pruned.*salience\.Pruned\.of\(model\) is its handle"):
        salience.prune(model, "random", tokens=4)
    with torch.no_grad():
        model(**batch)
    handle = salience.Pruned.of(model)
    assert handle is not None
    assert handle.method.name == "uniform"
    assert len(handle.trace.images[0].kept) == 4
    handle.undo()
    assert salience.Pruned.of(model) is None
    assert photograph(model) == before


def test_it_is_the_very_handle(make_model: Any) -> None:
    model = make_model()
    with salience.prune(model, "uniform", keep=0.5) as pruned:
        assert salience.Pruned.of(model) is pruned
        assert salience.Pruned.of(copy.deepcopy(model)) is None
        assert salience.Pruned.of(copy.copy(model)) is None
        assert salience.Pruned.of(make_model()) is None
    assert salience.Pruned.of(model) is None


@pytest.mark.parametrize("thing", [None, 3, "a model", torch.nn.Linear(2, 2)], ids=str)
def test_of_something_else_there_is_none(thing: Any) -> None:
    assert salience.Pruned.of(thing) is None


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch.compile's own
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks it
def test_through_wrappers(make_model: Any) -> None:
    peft = pytest.importorskip("peft")
    model = make_model()
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    wrapped = [adapted, torch.compile(model), torch.compile(adapted), torch.nn.DataParallel(adapted)]
    wrapped.append(torch.compile(torch.nn.DataParallel(adapted)))
    assert [salience.Pruned.of(each) for each in wrapped] == [None] * len(wrapped)
    with salience.prune(adapted, "uniform", keep=0.5) as pruned:
        assert all(salience.Pruned.of(each) is pruned for each in (model, *wrapped))
    assert [salience.Pruned.of(each) for each in wrapped] == [None] * len(wrapped)
