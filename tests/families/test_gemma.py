"""PaliGemma and Gemma3: token types are cut along, so what attends both ways still does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience


@pytest.mark.parametrize("name", ["paligemma", "gemma3"])
@torch.no_grad()
def test_types_are_cut_along(tiny_family: Any, name: str) -> None:
    family = tiny_family(name)
    model, batch, seen = family.model(), family.batch([1, 2]), []
    handle = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["token_type_ids"]), with_kwargs=True
    )
    with salience.prune(model, "uniform", keep=0.5) as pruned:
        logits = model(**batch).logits
        causal = model(**{k: v for k, v in batch.items() if k != "token_type_ids"}).logits
    handle.remove()
    for row, columns in enumerate(pruned.trace.columns):
        kept = columns >= 0
        assert torch.equal(seen[0][row, kept], batch["token_type_ids"][row, columns[kept]])
    assert (logits - causal).abs().max() > 1e-3  # far above the tolerance of all comparisons: it matters


@torch.no_grad()
def test_paligemma_counts_from_one(tiny_family: Any) -> None:
    """forward from 1; generate from 0, and the model adds the 1."""
    family = tiny_family("paligemma")
    model, batch, seen = family.model(), family.batch([1]), []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    with salience.prune(model, "uniform", keep=0.5) as pruned:
        model(**batch)
        model.generate(**batch, max_new_tokens=1)
    handle.remove()
    columns = pruned.trace.columns[0]
    assert torch.equal(seen[0][0], columns + 1)
    assert torch.equal(seen[1][0], columns + 1)


@torch.no_grad()
def test_an_image_token_outside_the_vocabulary(tiny_family: Any) -> None:
    """As published: the image token has no embedding of its own."""
    for name in ("paligemma", "gemma3"):
        family = tiny_family(name)
        model, batch = family.model(), family.batch([1, 2])
        model.config.image_token_id = 64
        batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] == 3, 64)
        wanted = model(**batch).logits
        with salience.prune(model, "uniform", keep=1):
            assert torch.equal(model(**batch).logits, wanted)
        with salience.prune(model, "uniform", keep=0.25):
            assert model(**batch).logits.shape[1] < wanted.shape[1]


@torch.no_grad()
def test_windows_count_the_tokens_that_are_there(tiny_family: Any) -> None:
    """Gemma3's sliding layers: with dropped tokens a window of six reaches further back than in the whole prompt.

    So the pruned run is not the whole sequence masked, but the whole sequence with windows counted in what remains.
    """
    family = tiny_family("gemma3")
    model, batch = family.model(), family.batch([1, 2])
    model.config.text_config.sliding_window = window = 6
    with salience.prune(model, "uniform", keep=0.34) as pruned:
        short = model(**batch).logits
    mask, ids = batch["attention_mask"], batch["input_ids"]
    stays = torch.zeros_like(mask, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    stays &= mask == 1
    length = ids.shape[1]
    ordered = torch.ones(length, length, dtype=torch.bool).tril()
    image = ids == 3
    block = (image & ~torch.nn.functional.pad(image, (1, 0))[:, :-1]).cumsum(1)
    together = image[:, :, None] & image[:, None] & (block[:, :, None] == block[:, None])
    seen = (ordered | together) & stays[:, None]
    place = stays.cumsum(1)  # among what remains
    gap = {"whole": torch.arange(length)[:, None] - torch.arange(length), "left": place[:, :, None] - place[:, None]}
    alone = torch.eye(length, dtype=torch.bool)  # a dropped token sees itself: nobody sees it
    logits = {}
    for counted, distance in gap.items():
        masks = {"full_attention": seen | alone, "sliding_attention": (seen & (distance < window)) | alone}
        given = {**batch, "attention_mask": {name: one[:, None] for name, one in masks.items()}}
        logits[counted] = model(**given, position_ids=torch.arange(length).expand_as(ids)).logits
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (mask[row, columns.clamp_min(0)] == 1)
        wanted = logits["left"][row, columns[real]]
        torch.testing.assert_close(short[row, real], wanted, atol=1e-5, rtol=0)  # float32, logits of order one
        assert (wanted - logits["whole"][row, columns[real]]).abs().max() > 1e-3  # and that it matters here
