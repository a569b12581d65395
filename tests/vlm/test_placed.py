"""Models whose weights accelerate keeps elsewhere until they are used, and models in few bits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.vlm.families import adapter_for

accelerate = pytest.importorskip("accelerate")
KINDS = ("llava", "qwen2_5_vl")
OPTIONS = {"do_sample": False, "max_new_tokens": 3, "min_new_tokens": 3, "suppress_tokens": [0, 3, 6]}


@pytest.fixture(params=KINDS)
def family(request: pytest.FixtureRequest, tiny_family: Any) -> Any:
    return tiny_family(request.param)


def said(model: Any, batch: dict[str, Any], method: Any, photograph: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and generated ids at half of the tokens; nothing is left behind."""
    before = photograph(model)
    with salience.prune(model, method, keep=0.5), torch.no_grad():
        result = model(**batch).logits, model.generate(**batch, **OPTIONS)
    assert photograph(model) == before
    return result


def offloaded(model: Any, where: str, folder: Path) -> Any:
    """All weights in main memory behind hooks, or the language model's on disk."""
    if where == "cpu":
        return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    parts = {name: "cpu" for name, _ in model.model.named_children()} | {"language_model": "disk"}
    places = {f"model.{name}": place for name, place in parts.items()} | {"lm_head": "cpu"}
    return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder)


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_weights_elsewhere_change_nothing(family: Any, where: str, tmp_path: Path, photograph: Any) -> None:
    batch, scorer = family.batch([1, 2]), salience.Scorer(adapter_for(family.model()).d_features)
    placed = offloaded(family.model(), where, tmp_path)
    assert placed.model.language_model.layers[0].mlp.up_proj.weight.is_meta
    assert adapter_for(placed).device == torch.device("cpu")
    for method in ("uniform", "cls-attention", "visionzip", scorer):
        wanted = said(family.model(), batch, method, photograph)
        for got, right in zip(said(placed, batch, method, photograph), wanted, strict=True):
            # [CLS]'s attention is summed in another order there: it may not move a token, and then nothing moves
            assert torch.equal(got, right)


def test_the_bundled_scorer_is_found_behind_hooks() -> None:
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(salience.bundled_model())
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    with salience.prune(model, "saliency", keep=0.25) as pruned:
        assert pruned.method.name == "saliency"


@pytest.mark.parametrize("bits", [8, 4])
def test_few_bits(bits: int, tiny_family: Any, tmp_path: Path) -> None:
    """bitsandbytes' weights are no matrices of the model's shape; the tower's may be in them too."""
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

    family = tiny_family("llava")
    family.model().save_pretrained(tmp_path)
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, llm_int8_skip_modules=["lm_head"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bitsandbytes warns of what its CPU kernels cast
        model = LlavaForConditionalGeneration.from_pretrained(tmp_path, quantization_config=config, device_map="cpu")
        batch = family.batch([1, 2])
        assert model.model.vision_tower.encoder.layers[0].self_attn.k_proj.weight.dtype in (torch.int8, torch.uint8)
        with torch.no_grad():
            whole = model(**batch).logits
            with salience.prune(model, "cls-attention", keep=1):
                assert torch.equal(model(**batch).logits, whole)
            encoded = adapter_for(model).encode(batch["pixel_values"])
            model.set_attn_implementation("eager")
            seen = model.model.vision_tower(batch["pixel_values"], output_attentions=True).attentions[-2]
        # float32 attention of weights rounded once, by one kernel or another, in bfloat16 inside
        torch.testing.assert_close(encoded.cls_attention(), seen[:, :, 0, 1:].mean(1).float(), atol=0.02, rtol=0)
        model.set_attn_implementation("sdpa")
        short, ids = said(model, batch, "cls-attention", lambda model: sorted(model.__dict__))
    assert short.shape[1] < whole.shape[1]
    assert torch.equal(ids[:, : batch["input_ids"].shape[1]], batch["input_ids"])
