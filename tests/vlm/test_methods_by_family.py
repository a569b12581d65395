"""Every method on every family: works, with a substitute or without, or is refused in a sentence.

`recipes/families_table.py` writes it down; the last test holds the page against what the others found.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.vlm.families import adapter_for
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]

FAMILIES = (
    "llava", "llava_siglip", "vila", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl",
    "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm46v", "glm4v_moe", "llama4", "ovis2", "lfm2_vl",
    "kimi_k25", "minicpmv4_6", "minicpmv4_7", "smolvlm", "idefics3", "internvl", "paligemma", "gemma3", "aya_vision",
    "mistral3",
)  # fmt: skip

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5

# What a method cannot do without, made up here: a scorer, boxes.
GIVEN: Mapping[str, Callable[[Any], Any]] = {
    "saliency": lambda adapter: salience.Scorer(adapter.d_features),
    "fastv": lambda adapter: FastV(layer=1),  # of two
    "oracle": lambda adapter: salience.Oracle(boxes=[[(10, 10, 30, 40)]] * 6, image_size=(84, 84)),
}


FOUND: dict[tuple[str, str], str] = {}  # what `test_works_or_says_why_not` found, for the page's test


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_family: Any) -> Any:
    return tiny_family(request.param)


@pytest.fixture(scope="module")
def model(family: Any) -> Any:
    return family.model()


@pytest.mark.parametrize("name", sorted(METHODS))
@torch.no_grad()
def test_works_or_says_why_not(model: Any, family: Any, name: str, record_property: Any, in_llm_oracle: Any) -> None:
    def note(outcome: str) -> None:
        for field, value in {"family": family.name, "method": name, "outcome": outcome}.items():
            record_property(field, value)
        FOUND[family.name, name] = outcome

    note("fails")
    torch.manual_seed(2)
    method = GIVEN[name](adapter_for(model)) if name in GIVEN else name
    batch, seen = family.batch([1, 2]), []
    wanted = model(**batch).logits
    try:
        handle = salience.prune(model, method, keep=1)
    except ValueError as error:
        sentence = str(error)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert "use " in sentence  # another method that works
        note(sentence)
        return
    with handle:
        assert torch.equal(model(**batch).logits, wanted)
    hook = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("mm_encoder_outputs", {}).get("image")), with_kwargs=True
    )
    with salience.prune(model, method, keep=0.5) as pruned:
        short = model(**batch).logits
    hook.remove()
    if pruned.trace.images[0].stages:
        with in_llm_oracle(model, batch, pruned):
            full = model(**batch).logits
    else:
        full = model(**whole(model, batch, pruned, seen[0])).logits
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        torch.testing.assert_close(short[row, real], full[row, columns[real]], atol=FLOAT32, rtol=0)
    assert short.shape[1] < full.shape[1]
    note(f"substitute: {pruned.trace.substitute}" if pruned.trace.substitute else "works")


def test_the_page_says_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if len(FOUND) < len(FAMILIES) * len(METHODS):
        pytest.skip("not all of them ran")
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    monkeypatch.syspath_prepend(ROOT / "recipes")  # for the recipe's helper module
    assert recipe().table(FOUND) in page, "python recipes/families_table.py writes it anew"


def recipe() -> Any:
    spec = importlib.util.spec_from_file_location("families_table", ROOT / "recipes" / "families_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def whole(model: Any, batch: dict[str, Any], pruned: Any, given: Any) -> dict[str, Any]:
    """The whole sequence's arguments, what is gone masked, and in its places what the pruned call was given."""
    ids, arguments = batch["input_ids"], adapter_for(model).image_arguments
    pictures = {name: value for name, value in batch.items() if name in arguments}
    mask = batch["attention_mask"]
    stays = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    if given is None:  # Llama4 has no model inside the one that is called; what merges tokens is refused there
        return {**batch, "attention_mask": mask.masked_fill(~stays, 0)}
    output = model.get_image_features(**pictures, return_dict=True)
    kept = stays[ids == 3]  # of the prompt's image tokens, in order

    def put(rows: Any, new: Any) -> Any:
        every = torch.cat([part.reshape(-1, part.shape[-1]) for part in rows]).clone()
        every[kept] = torch.cat([part.reshape(-1, part.shape[-1]) for part in new])
        return every[None] if isinstance(rows, Tensor) else [every]

    output.pooler_output = put(output.pooler_output, given.pooler_output)
    if getattr(given, "deepstack_features", None):
        layers = zip(output.deepstack_features, given.deepstack_features, strict=True)
        output.deepstack_features = [put(layer, new) for layer, new in layers]
    rest = {name: value for name, value in batch.items() if name not in arguments}
    if hasattr(model.base_model, "get_rope_index"):
        rest["position_ids"] = adapter_for(model).position_ids(batch, mask, generating=False)
    return {**rest, "attention_mask": mask.masked_fill(~stays, 0), "mm_encoder_outputs": {"image": output}}
