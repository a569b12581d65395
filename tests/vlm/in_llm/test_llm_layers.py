"""What a token pays the others in a layer, beside the model's own eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from salience.vlm.families import adapter_for
from salience.vlm.in_llm.llm_layers import LLMLayers

# Decoders that differ: plain, window and norms, rotary in windows alone, several axes with and without norms.
FAMILIES = ("llava", "gemma3", "aya_vision", "qwen2_vl", "qwen3_vl", "paligemma", "mistral3")


def seen_by(decoder: LLMLayers, call: Any) -> dict[int, Tensor]:
    """Each layer's attention of all rows, while the model runs."""
    found: dict[int, Tensor] = {}

    def hook_of(index: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            rows = torch.arange(hidden.shape[1]).expand(hidden.shape[0], -1)
            rotary, mask = kwargs["position_embeddings"], kwargs["attention_mask"]
            found[index] = decoder.attention(index, hidden, rows, rotary, mask)

        return hook

    handles = [x.register_forward_pre_hook(hook_of(i), with_kwargs=True) for i, x in enumerate(decoder.layers)]
    call()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_equals_eager_attention(tiny_family: Any, name: str) -> None:
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    decoder = LLMLayers(adapter_for(model).language_model)
    quick = seen_by(decoder, lambda: model(**batch))
    model.set_attn_implementation("eager")
    kept: list[Any] = []
    found = seen_by(decoder, lambda: kept.append(model(**batch, output_attentions=True).attentions))
    real = batch["attention_mask"].bool()
    for index, wanted in enumerate(kept[0]):
        # the same float32 sums; sdpa's masks differ in what a padding token sees, which nobody reads
        torch.testing.assert_close(found[index], wanted.mean(1), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(quick[index][real], wanted.mean(1)[real], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_cap_on_the_logits() -> None:
    """Gemma2's, PaliGemma2's language model."""
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, attn_logit_softcapping=0.05, attn_implementation="eager", pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model, kept = Gemma2Model(config).eval(), []
    ids = torch.randint(1, 16, (2, 12))
    found = seen_by(LLMLayers(model), lambda: kept.append(model(ids, output_attentions=True).attentions))
    for index, wanted in enumerate(kept[0]):
        torch.testing.assert_close(found[index], wanted.mean(1), atol=1e-6, rtol=1e-5)  # the same float32 sums


def test_windows(tiny_family: Any) -> None:
    windows = {n: LLMLayers(adapter_for(tiny_family(n).model()).language_model).window for n in ("gemma3", "llava")}
    assert [windows["gemma3"](i) for i in range(2)] == [4096, None]
    assert windows["llava"](0) is None


def test_layers_it_does_not_know() -> None:
    for module in (nn.Linear(1, 1), nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(1, 1)])})):
        with pytest.raises(ValueError, match="in Llama-like layers only"):
            LLMLayers(module)
