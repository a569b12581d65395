"""Calls that have nothing to do with pictures, alone or as rows among others, are what they are without pruning."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import salience
from salience.core.transformers_names import cache_of_output, passed_cache

METHODS = ["uniform", "prumerge+", "fastv", "sparsevlm"]
OPTIONS = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": [0, 3, 6]}


@pytest.fixture
def deep_llava(tiny_family: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    family = tiny_family("llava")
    monkeypatch.setitem(sys.modules["tiny_families"].TEXT, "num_hidden_layers", 4)
    return family


def text(family: Any) -> dict[str, Any]:
    batch = family.batch([1, 2])
    ids = batch["input_ids"].clone()
    ids[ids < 8] = 9  # no token of a picture, no padding
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_text_alone(method: str, deep_llava: Any) -> None:
    """Bit for bit, with a cache and without, and the trace stays that of the last pictures."""
    model, batch, words = deep_llava.model(), deep_llava.batch([2]), text(deep_llava)
    wanted = model(**words, use_cache=True)
    more = {"input_ids": torch.tensor([[11], [12]]), **passed_cache(model, cache_of_output(wanted))}
    next_wanted = model(**more).logits
    ids = model.generate(**words, **OPTIONS)
    columns = model(words["input_ids"], logits_to_keep=torch.tensor([3])).logits
    labelled = model(**words, labels=words["input_ids"]).loss
    with salience.prune(model, method, keep=0.5) as pruned:
        model(**batch)
        trace = pruned.trace
        got = model(**words, use_cache=True)
        assert torch.equal(got.logits, wanted.logits)
        assert torch.equal(model(**{**more, **passed_cache(model, cache_of_output(got))}).logits, next_wanted)
        assert torch.equal(model.generate(**words, **OPTIONS), ids)
        assert torch.equal(model.generate(inputs=words["input_ids"], **OPTIONS), ids)
        assert torch.equal(model(**words, labels=words["input_ids"]).loss, labelled)
        assert torch.equal(model(words["input_ids"], logits_to_keep=torch.tensor([3])).logits, columns)
        assert pruned.trace is trace


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "aya_vision", "idefics3", "paligemma"])
def test_text_alone_with_other_families(name: str, tiny_family: Any) -> None:
    family = tiny_family(name)
    model, words, batch = family.model(), text(family), family.batch([2])
    if name in ("gemma3", "paligemma"):
        words["token_type_ids"] = torch.zeros_like(words["input_ids"])
    wanted, ids = model(**words).logits, model.generate(**words, **OPTIONS)
    with salience.prune(model, "sparsevlm", keep=0.5):
        model.generate(**batch, **OPTIONS)
        assert torch.equal(model(**words).logits, wanted)
        assert torch.equal(model.generate(**words, **OPTIONS), ids)


@pytest.mark.parametrize("door", ["forward", "generate"])
@pytest.mark.parametrize("method", ["uniform", "fastv", "sparsevlm"])
def test_rows_without_a_picture(method: str, door: str, deep_llava: Any) -> None:
    """Beside rows that have some; each row says what it says alone."""
    model = deep_llava.model()
    batch = deep_llava.batch([1, 0, 2])

    def said(own: dict[str, Any]) -> torch.Tensor:
        ids: torch.Tensor = (
            model.generate(**own, **OPTIONS)[:, -4:] if door == "generate" else model(**own).logits[:, -1]
        )
        return ids

    alone = []
    with torch.no_grad(), salience.prune(model, method, keep=0.5) as pruned:
        got = said(batch)
        assert len(pruned.trace.images) == 3
        for row, pictures in enumerate(([0], [], [1, 2])):
            own = {name: value[row : row + 1] for name, value in batch.items() if name != "pixel_values"}
            real = own["attention_mask"][0] != 0
            own = {name: value[:, real] for name, value in own.items()}
            if pictures:
                own["pixel_values"] = batch["pixel_values"][pictures]
            alone.append(said(own))
    if door == "generate":
        assert torch.equal(got, torch.cat(alone))
    else:  # forward counts padding's positions too, so rows differ by rotary embeddings of shifted places
        torch.testing.assert_close(got, torch.cat(alone), atol=2e-4, rtol=0)


def test_tokens_of_pictures_without_pictures_are_refused(deep_llava: Any) -> None:
    model, batch = deep_llava.model(), deep_llava.batch([1])
    del batch["pixel_values"]
    with salience.prune(model, "uniform", keep=0.5):
        for door in (model, model.generate):
            with pytest.raises(ValueError, match="no picture to prune"):
                door(**batch)
