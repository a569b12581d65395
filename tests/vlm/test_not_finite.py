"""A model whose numbers cannot be ranked: an error in one sentence, and a model that is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.core.types import TokenContext
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.pyramiddrop import PyramidDrop
from salience.vlm.methods.sparsevlm import SparseVLM


@pytest.fixture
def five_layers(tiny_llava: Callable[..., Any]) -> Any:
    return tiny_llava(side=56, layers=5)


@pytest.mark.parametrize("method", [FastV(layer=2), PyramidDrop(), SparseVLM()], ids=lambda method: str(method.name))
def test_attention_of_a_language_model_that_overflows(
    five_layers: Any, make_batch: Callable[..., dict[str, Tensor]], method: Any
) -> None:
    batch = make_batch([1])
    layers = five_layers.model.language_model.layers
    with torch.no_grad():
        for layer in layers:
            layer.self_attn.k_proj.weight[0, 0] = float("inf")
    with salience.prune(five_layers, method, keep=0.25), torch.no_grad():
        with pytest.raises(ValueError, match=f"method {method.name!r} ranks tokens by .* must be finite"):
            five_layers(**batch)
        with pytest.raises(ValueError, match=f"method {method.name!r} ranks tokens by .* must be finite"):
            five_layers.generate(**batch, max_new_tokens=2, do_sample=False)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in five_layers.modules())


@pytest.mark.parametrize("method", ["cls-attention", "divprune", "vispruner", "visionzip", "prumerge", "tome"])
def test_a_tower_that_overflows(
    make_model: Callable[..., Any], make_batch: Callable[..., dict[str, Tensor]], method: str
) -> None:
    model, batch = make_model(), make_batch([1])
    with torch.no_grad():
        for layer in model.model.vision_tower.encoder.layers:
            layer.layer_norm1.weight[0] = float("inf")
    with salience.prune(model, method, keep=0.5), torch.no_grad(), pytest.raises(ValueError, match="must be finite"):
        model(**batch)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ratio(salience.Method):
    """Somebody's own, with a division by zero in it."""

    name = "ratio"

    def score(self, ctx: TokenContext) -> Tensor:
        zero = torch.zeros(len(ctx.features))
        return zero / zero


def test_somebody_s_method(make_model: Callable[..., Any], make_batch: Callable[..., dict[str, Tensor]]) -> None:
    model = make_model()
    with salience.prune(model, Ratio(), keep=0.5), pytest.raises(ValueError, match="'ratio' ranks tokens by scores"):
        model.generate(**make_batch([1]), max_new_tokens=2)
