"""Text-to-image attention beside the model's own eager attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from salience.vlm.in_llm.llm_layers import LLMLayers, watch_layers


@pytest.mark.parametrize("masked", [False, True])
def test_equals_eager_attention(tiny_llava: Callable[..., Any], masked: bool) -> None:
    model = tiny_llava(84, layers=3).model.language_model
    embeddings = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(0))
    allowed = torch.ones(20, 20, dtype=torch.bool).tril()
    if masked:
        allowed[12:, 3:6] = False
    additive = torch.zeros(2, 1, 20, 20).masked_fill(~allowed, torch.finfo(torch.float32).min)
    seen: dict[int, Tensor] = {}
    rows = torch.arange(12, 20).expand(2, -1)
    with torch.no_grad():
        with watch_layers(LLMLayers(model), rows, seen.__setitem__, columns=slice(2, 10)):
            model(inputs_embeds=embeddings, attention_mask=additive, use_cache=False)
        model.set_attn_implementation("eager")
        try:
            eager = model(inputs_embeds=embeddings, attention_mask=additive, output_attentions=True).attentions
        finally:
            model.set_attn_implementation("sdpa")
    assert sorted(seen) == [0, 1, 2]
    for layer, wanted in enumerate(eager):
        # Two orders of the same float32 sums; shares are at most 1.
        torch.testing.assert_close(seen[layer], wanted.mean(1)[:, 12:20, 2:10], atol=1e-6, rtol=1e-5)


def test_no_hook_stays(tiny_llava: Callable[..., Any]) -> None:
    model = tiny_llava(84).model.language_model

    def fail(layer: int, shares: Tensor) -> None:
        raise RuntimeError("stop")

    with (
        pytest.raises(RuntimeError, match="stop"),
        watch_layers(LLMLayers(model), torch.zeros(1, 1, dtype=torch.int64), fail),
    ):
        model(inputs_embeds=torch.zeros(1, 2, 32))
    assert not any(layer._forward_pre_hooks for layer in model.layers)


def test_refuses_other_layers() -> None:
    with pytest.raises(ValueError, match="Llama-like"):
        LLMLayers(nn.Linear(1, 1))
