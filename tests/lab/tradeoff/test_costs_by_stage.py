"""What methods inside the model cost: their stages compute what `prune` has the model compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import salience
from salience.core.result_rows import TRADEOFF_COSTS
from salience.core.transformers_names import cache_of_output
from salience.lab.evaluate.prompts import encode_prompt, prompt_inputs
from salience.lab.tradeoff.costs import measure_costs, rounds
from salience.lab.tradeoff.stage_pipeline import InsidePipeline, TimedPrompt
from salience.vlm.families import adapter_for
from salience.vlm.methods.base import Method
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.pyramiddrop import PyramidDrop
from salience.vlm.methods.sparsevlm import SparseVLM
from salience.vlm.methods.tome import ToMe
from salience.vlm.methods.uniform import Uniform

METHODS = [FastV(layer=1), PyramidDrop(), SparseVLM(), ToMe()]


@pytest.fixture(scope="module")
def asked(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any], noise: Callable[..., Any]
) -> tuple[Any, TimedPrompt, dict[str, Any]]:
    """A model of three layers, the case, and the same as the model's arguments."""
    model, processor = tiny_llava(84, layers=3), tiny_processor(84)
    torch.manual_seed(0)
    inputs = dict(prompt_inputs(processor, [noise()], ["which digit is red ?"]))
    prompt = encode_prompt(processor, "which digit is red ?", "7", image_token_id=model.config.image_token_id)
    return model, TimedPrompt(pixels=inputs["pixel_values"], prompt=prompt), inputs


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@torch.no_grad()
def test_its_prefill_is_prunes(asked: tuple[Any, TimedPrompt, dict[str, Any]], method: Method) -> None:
    model, case, inputs = asked
    pipeline = InsidePipeline(adapter_for(model), case, method, 0.25)
    encoded = pipeline.encode()
    cache, logits = pipeline.prefill(*pipeline.project(encoded, pipeline.kept(encoded)))
    with salience.prune(model, method, keep=0.25):
        wanted = model(**inputs, use_cache=True)
    # float32: the same kernels on the same tokens, put into the prompt another way
    torch.testing.assert_close(logits, wanted.logits[:, -1], atol=1e-5, rtol=0)
    theirs = cache_of_output(wanted)
    assert [layer.keys.shape for layer in cache.layers] == [layer.keys.shape for layer in theirs.layers]
    before = cache.layers[-1].keys.shape[-2]
    pipeline.decode(cache, logits, torch.tensor([[before]]))
    assert cache.layers[-1].keys.shape[-2] > before


def test_columns(asked: tuple[Any, TimedPrompt, dict[str, Any]]) -> None:
    """Between all tokens' and those of a method that drops as many before the language model."""
    model, case, _ = asked
    adapter = adapter_for(model)
    methods, ticks = {method.name: method for method in (Uniform(), *METHODS)}, []
    found = measure_costs(adapter, case, methods, (1.0, 0.25), repeats=1, tick=lambda: ticks.append(None))
    assert len(ticks) == rounds(methods, (1.0, 0.25), repeats=1)
    columns: dict[tuple[str, float], Any] = {key: each.to_json() for key, each in found.items()}
    whole, early = columns["uniform", 1.0], columns["uniform", 0.25]
    for method in METHODS:
        full, cut = columns[method.name, 1.0], columns[method.name, 0.25]
        assert all(full[name] == whole[name] for name in TRADEOFF_COSTS if name != "peak_bytes")
        assert all(full[name] == whole[name] for name in ("encode_ms", "prefill_ms", "decode_ms_per_token"))
        assert cut["flops_total"] < full["flops_total"]
        assert early["kv_bytes"] <= cut["kv_bytes"] < full["kv_bytes"]
        assert early["flops_llm"] <= cut["flops_llm"] < full["flops_llm"]
        assert cut["select_ms"] is None
        assert cut["first_token_ms"] == cut["encode_ms"] + cut["project_ms"] + cut["prefill_ms"]
        assert cut["prefill_batch4_ms"] > 0 < cut["decode_ms_per_token"]
    assert columns["tome", 0.25]["kv_bytes"] == early["kv_bytes"]
    assert columns["tome", 0.25]["flops_vision"] < whole["flops_vision"]


def test_methods_inside_by_themselves(asked: tuple[Any, TimedPrompt, dict[str, Any]]) -> None:
    model, case, _ = asked
    ticks: list[None] = []
    inside = {"tome": ToMe()}
    found = measure_costs(adapter_for(model), case, inside, (1.0, 0.25), repeats=1, tick=lambda: ticks.append(None))
    assert set(found) == {("tome", 1.0), ("tome", 0.25)} and len(ticks) == rounds(inside, (1.0, 0.25), repeats=1)
