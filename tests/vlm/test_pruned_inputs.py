"""The stages run one by one are what `prune` runs; and where a scorer by name comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.vlm.families import adapter_for
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.fastv import FastV
from salience.vlm.pruned_inputs import pruned_inputs


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("keep", [0.3, 1])
@torch.no_grad()
def test_stage_by_stage_is_prune(model: Any, make_batch: Any, positions: Any, keep: float) -> None:
    batch, adapter, method = make_batch([1, 2]), adapter_for(model), ClsAttention()
    with salience.prune(model, method, keep=keep, positions=positions):
        wanted = model(**batch).logits
    encoded = adapter.encode(batch["pixel_values"])
    selections = method.select_all([encoded.context(i, method.needs) for i in range(3)], Budget(keep=keep))
    cut = pruned_inputs(adapter, encoded, selections, batch["input_ids"], batch["attention_mask"], positions=positions)
    hidden = adapter.language_model(
        inputs_embeds=adapter.embed(cut.input_ids, cut.projected), attention_mask=cut.attention_mask,
        position_ids=cut.position_ids,
    ).last_hidden_state  # fmt: skip
    assert torch.equal(adapter.lm_head(hidden), wanted)


@pytest.mark.parametrize("method", ["uniform", FastV(layer=1)], ids=["before", "inside"])
@torch.no_grad()
def test_a_view_smaller_than_the_count_stays_whole_and_the_trace_says_so(tiny_family: Any, method: Any) -> None:
    """Pictures of 12, 6 and 10 tokens, 10 asked for."""
    model, batch = tiny_family("qwen2_vl").model(), tiny_family("qwen2_vl").batch([1, 2])
    with salience.prune(model, method, tokens=10) as pruned:
        model(**batch)
        assert [len(image.kept) for image in pruned.trace.images] == [10, 6, 10]
        assert pruned.trace.note == "1 of 3 views have fewer than tokens=10 and stay whole."
    with salience.prune(model, method, tokens=6) as pruned:
        model(**batch)
        assert pruned.trace.note == ""


def saved(model: Any, folder: Path) -> Any:
    from transformers import LlavaForConditionalGeneration

    model.save_pretrained(folder)
    return LlavaForConditionalGeneration.from_pretrained(folder)


def test_scorer_in_the_models_folder(make_model: Any, make_batch: Any, tmp_path: Path) -> None:
    model = saved(make_model(), tmp_path / "model")
    with pytest.raises(ValueError, match="salience fit"):
        salience.prune(model, "saliency", keep=0.5)
    scorer = salience.Scorer(24)
    scorer.save_pretrained(tmp_path / "model" / "salience")
    kept = []
    for method in ("saliency", "auto", scorer):
        with torch.no_grad(), salience.prune(model, method, tokens=4) as pruned:
            model(**make_batch([1]))
        assert pruned.method.name == "saliency"
        kept.append(pruned.trace.images[0].kept.tolist())
    assert kept[0] == kept[1] == kept[2]


def test_bundled_scorer_goes_with_exactly_its_model(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.setattr("salience.vlm.model_scorer.bundled_model", lambda: tmp_path)
    salience.Scorer(24, model=adapter_for(model).fingerprint()).save_pretrained(tmp_path / "salience")
    for dtype in (torch.float32, torch.bfloat16):
        with salience.prune(make_model(dtype), "saliency", keep=0.5) as pruned:
            assert pruned.method.name == "saliency"
    with torch.no_grad():
        for parameter in model.model.vision_tower.parameters():
            parameter.mul_(1.1)  # a tower trained on is another tower
    with pytest.raises(ValueError, match="salience fit"):
        salience.prune(model, "saliency", keep=0.5)
    with salience.prune(model, "auto", keep=0.5) as pruned:
        assert pruned.method.name == "cls-attention"


def test_bundled_scorer_on_disk_names_a_tower() -> None:
    """The scorer that ships says which tower it was made for: without that, nobody would be given it."""
    config = salience.bundled_model() / "salience" / "config.json"
    if not config.is_file():
        pytest.skip("no bundled model in this checkout")
    assert json.loads(config.read_text(encoding="utf-8"))["model"]["sample"]
