"""A copy of a model that is being pruned is a model of its own, unpruned; pickling says what to do."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import salience


class Bigger(nn.Module):
    """A module of somebody's, with the model in it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.name = "bigger"


def plain(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**batch).logits
    return logits


def own(copied: Any, original: Any, batch: dict[str, Tensor]) -> None:
    """Unpruned, of weights of its own, to be pruned itself, in generate as in forward."""
    columns = batch["input_ids"].shape[1]
    assert not {"forward", "generate", "__getstate__", "__reduce_ex__", "__setstate__"} & set(vars(copied))
    assert plain(copied, batch).shape[1] == columns
    assert plain(original, batch).shape[1] < columns  # goes on being pruned
    with salience.prune(copied, "uniform", tokens=2) as pruned:
        assert plain(copied, batch).shape[1] == columns - 14
        copied.generate(**batch, max_new_tokens=2)
        assert len(pruned.trace.images[0].kept) == 2
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert plain(copied, batch).abs().sum() == 0
    assert set(copied.generate(**batch, max_new_tokens=2, do_sample=False)[:, columns:].flatten().tolist()) == {0}
    assert plain(original, batch).abs().sum() > 0


@pytest.mark.parametrize("method", ["uniform", "fastv"])
def test_deepcopy(make_model: Any, make_batch: Any, photograph: Any, method: str) -> None:
    model, batch = make_model(), make_batch([1])
    before = photograph(model)
    with salience.prune(model, method, tokens=4):
        copied = copy.deepcopy(model)
        assert set(photograph(copied)) == set(before)
        assert all(photograph(copied)[name][:3] == before[name][:3] for name in before if name != "parameters")
        if method == "uniform":
            own(copied, model, batch)
        else:
            assert torch.equal(plain(copied, batch), plain(copy.deepcopy(copied), batch))
            assert "forward" not in vars(copied)


def test_deepcopy_of_what_holds_the_model(make_model: Any, make_batch: Any) -> None:
    model, batch = make_model(), make_batch([1])
    with salience.prune(model, "uniform", tokens=4):
        copied = copy.deepcopy([Bigger(model), {"again": model}])
        assert copied[1]["again"] is copied[0].inner is not model
        assert copied[0].name == "bigger"
        own(copied[0].inner, model, batch)


def test_shallow_copy(make_model: Any, make_batch: Any) -> None:
    """Shares its weights, and reads its own attributes."""
    model, batch = make_model(), make_batch([1])
    with salience.prune(model, "uniform", tokens=4):
        copied = copy.copy(model)
        assert plain(copied, batch).shape[1] == batch["input_ids"].shape[1]
        assert plain(model, batch).shape[1] < batch["input_ids"].shape[1]
        copied.generation_config = copy.deepcopy(model.generation_config)
        copied.generation_config.max_new_tokens = 3
        assert copied.generate(**batch, min_new_tokens=3).shape[1] == batch["input_ids"].shape[1] + 3


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # of PEFT's own
def test_deepcopy_of_wrappers(make_model: Any, make_batch: Any) -> None:
    """PEFT's and torch.compile's hand on attributes of what is inside them, and stay wrappers."""
    peft = pytest.importorskip("peft")

    batch = make_batch([1])
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    for wrapped in (peft.get_peft_model(make_model(), config), torch.compile(make_model(), backend="eager")):
        with salience.prune(wrapped, "uniform", tokens=4):
            copied = copy.deepcopy(wrapped)
            assert type(copied) is type(wrapped)
            assert plain(copied, batch).shape[1] == batch["input_ids"].shape[1]
            assert plain(wrapped, batch).shape[1] < batch["input_ids"].shape[1]
            with torch.no_grad():
                for parameter in copied.parameters():
                    parameter.zero_()
            assert plain(copied, batch).abs().sum() == 0
    torch._dynamo.reset()


def test_deepcopy_with_anothers_forward_below_or_on_top(make_model: Any, make_batch: Any) -> None:
    """accelerate puts its forward on the instance, and keeps the one before it."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    batch = make_batch([1])
    below = add_hook_to_module(make_model(), ModelHook())
    with salience.prune(below, "uniform", tokens=4):
        copied = copy.deepcopy(below)
        assert plain(copied, batch).shape[1] == batch["input_ids"].shape[1]
    top = make_model()
    with salience.prune(top, "uniform", tokens=4):
        add_hook_to_module(top, ModelHook())
        other = copy.deepcopy(top)
        assert plain(top, batch).shape[1] < batch["input_ids"].shape[1]
        assert plain(other, batch).shape[1] == batch["input_ids"].shape[1]
    for each in (copied, other):
        with torch.no_grad():
            for parameter in each.parameters():
                parameter.zero_()
        assert plain(each, batch).abs().sum() == 0


def test_deepcopy_while_another_thread_generates(make_model: Any, make_batch: Any, photograph: Any) -> None:
    """No hook of a call under way is left on the copy."""
    model, batch = make_model(), make_batch([1])
    before = {name: seen[2] for name, seen in photograph(model).items() if name != "parameters"}
    begun, copied = threading.Event(), threading.Event()

    class Streamer:
        def put(self, value: Any) -> None:
            begun.set()
            copied.wait(30)

        def end(self) -> None:
            pass

    with salience.prune(model, "fastv", tokens=4):
        options = {**batch, "max_new_tokens": 3, "streamer": Streamer()}
        thread = threading.Thread(target=model.generate, kwargs=options)
        thread.start()
        assert begun.wait(30)
        other = copy.deepcopy(model)
        copied.set()
        thread.join()
    assert {name: seen[2] for name, seen in photograph(other).items() if name != "parameters"} == before


@pytest.mark.parametrize("nested", [False, True], ids=["model", "what holds it"])
@pytest.mark.parametrize("way", ["pickle", "torch.save"])
def test_pickling_says_what_to_do(make_model: Any, way: str, nested: bool) -> None:
    model = make_model()
    what = Bigger(model) if nested else model
    save = pickle.dumps if way == "pickle" else (lambda obj: torch.save(obj, io.BytesIO()))
    with salience.prune(model, "uniform", tokens=4):
        with pytest.raises(ValueError, match=r"undo the pruning first, or save model\.state_dict\(\)\.") as caught:
            save(what)
        assert "\n" not in str(caught.value)
        torch.save(model.state_dict(), io.BytesIO())
    save(what)


def test_save_pretrained_goes_on(make_model: Any, make_batch: Any, tmp_path: Path) -> None:
    model, batch = make_model(), make_batch([1])
    wanted = plain(model, batch)
    with salience.prune(model, "uniform", tokens=4):
        model.save_pretrained(tmp_path)
    assert torch.equal(plain(type(model).from_pretrained(tmp_path), batch), wanted)


def test_replicas_are_refused(make_model: Any) -> None:
    """DataParallel's copies hold the same functions."""
    model = make_model()
    with salience.prune(model, "uniform", tokens=4), pytest.raises(ValueError, match="DataParallel"):
        model._replicate_for_data_parallel()
    assert type(model._replicate_for_data_parallel()) is type(model)
