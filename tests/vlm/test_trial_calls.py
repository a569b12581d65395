"""Trials of `prune` before it accepts a model: positions that generate drops, and calls that would fail."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

import salience
from salience.core.transformers_names import cache_in
from salience.vlm import trial_calls as trial

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5
OPTIONS = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": [0, 1, 3]}


class Forgets(LlavaForConditionalGeneration):
    """Counts positions anew in generate, from what is cached, as several families do."""

    def prepare_inputs_for_generation(self, input_ids: Any, **kwargs: Any) -> Any:
        return {**super().prepare_inputs_for_generation(input_ids, **kwargs), "position_ids": None}


class ForgetsLater(LlavaForConditionalGeneration):
    """Keeps the prompt's positions, and counts anew in every later step."""

    def prepare_inputs_for_generation(self, input_ids: Any, is_first_iteration: bool = False, **kwargs: Any) -> Any:
        made = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        return made if is_first_iteration else {**made, "position_ids": None}


class Fails(LlavaForConditionalGeneration):
    """Takes encoder outputs by its signature, and fails on them."""

    @functools.wraps(LlavaForConditionalGeneration.forward)
    def forward(self, *args: Any, mm_encoder_outputs: Any = None, **kwargs: Any) -> Any:
        if mm_encoder_outputs is not None:
            raise TypeError("no such\noutputs")
        return super().forward(*args, **kwargs)


class CountsInForward(LlavaForConditionalGeneration):
    """Counts positions anew in forward."""

    @functools.wraps(LlavaForConditionalGeneration.forward)
    def forward(self, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        past, ids = cache_in(kwargs), kwargs["input_ids"]
        seen = 0 if past is None else past.get_seq_length()
        return super().forward(*args, position_ids=seen + torch.arange(ids.shape[1])[None], **kwargs)


@pytest.fixture
def made(make_model: Callable[..., Any]) -> Callable[[type[Any]], Any]:
    """`made(kind)` -> a tiny LLaVA of a class of its own."""

    def make(kind: type[Any]) -> Any:
        model = make_model()
        model.__class__ = kind
        return model

    return make


@pytest.mark.parametrize("kind", [Forgets, ForgetsLater])
@pytest.mark.parametrize("positions", ["auto", "original"])
def test_positions_that_generate_drops_are_noticed(made: Any, kind: type[Any], positions: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"'{positions}' with {kind.__name__}, whose generate .*: use positions="
    ) as error:
        salience.prune(made(kind), "uniform", keep=0.5, positions=positions)
    assert "\n" not in str(error.value)


def test_positions_dropped_by_one_model_alone_are_noticed(make_model: Any) -> None:
    model = make_model()
    own = type(model).prepare_inputs_for_generation
    model.prepare_inputs_for_generation = types.MethodType(
        lambda self, *args, **kwargs: {**own(self, *args, **kwargs), "position_ids": None}, model
    )
    with pytest.raises(ValueError, match="positions can't be 'auto'"):
        salience.prune(model, "uniform", keep=0.5)


def test_a_model_that_counts_anew_is_pruned_with_compact_positions(made: Any, make_batch: Any, oracle: Any) -> None:
    model, batch = made(Forgets), make_batch([1, 1])
    with salience.prune(model, "uniform", keep=0.5, positions="compact") as pruned:
        got = model.generate(**batch, **OPTIONS)
    model.__class__ = LlavaForConditionalGeneration  # which is told the positions that it is to have
    wanted = oracle(model=model, batch=batch, pruned=pruned, positions="compact").generate(**OPTIONS)
    assert torch.equal(got, wanted)


def test_a_forward_that_fails_on_pruned_pictures_is_refused_at_once(made: Any) -> None:
    with pytest.raises(ValueError, match=r"^pruning does not fit Fails: .*TypeError \(no such\)\.$"):
        salience.prune(made(Fails), "uniform", keep=0.5)


def test_a_forward_that_drops_positions_is_refused_at_once(made: Any) -> None:
    with pytest.raises(ValueError, match=r"^pruning does not fit CountsInForward: .* masked\.$"):
        salience.prune(made(CountsInForward), "uniform", keep=0.5)


def test_a_class_that_cannot_be_built_tiny_is_not_tried(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("num_layers")

    monkeypatch.setattr(trial, "tiny_model", fail)
    monkeypatch.setattr(trial, "_found", {})
    salience.prune(made(LlavaForConditionalGeneration), "uniform", keep=0.5).undo()


def test_a_class_is_tried_once_for_each_config(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    own = trial.tiny_model
    monkeypatch.setattr(trial, "tiny_model", lambda *args: built.append(args) or own(*args))
    monkeypatch.setattr(trial, "_found", {})
    for _ in range(2):
        salience.prune(make_model(), "uniform", keep=0.5).undo()
        salience.prune(make_model(), "divprune", keep=0.25).undo()
    assert len(built) == 1
    model = make_model()
    model.config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": 77.0}
    salience.prune(model, "uniform", keep=0.5).undo()
    salience.prune(model, "sparsevlm", keep=0.5).undo()
    assert len(built) == 3


def test_the_trial_leaves_nothing_behind(make_model: Any, photograph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    monkeypatch.setattr(trial, "_found", {})
    before, random = photograph(model), torch.get_rng_state()
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        salience.prune(model, "uniform", keep=0.5).undo()
    assert photograph(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_the_trial_reads_no_weight_of_the_model(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight-bit weights, weights on meta and on a disk are all the same to it."""
    monkeypatch.setattr(trial, "_found", {})
    salience.prune(make_model().to("meta"), "uniform", keep=0.5).undo()
