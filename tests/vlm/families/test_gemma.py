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


@pytest.mark.parametrize(
    ("positions", "counted", "other"), [("original", "whole", "left"), ("compact", "left", "whole")]
)
@torch.no_grad()
def test_windows_are_measured_as_positions_are(tiny_family: Any, positions: Any, counted: str, other: str) -> None:
    """Gemma3's sliding layers: a window of six reaches back in the whole prompt, or with gaps closed in what is left.

    The masks are made here, by hand: a picture's tokens see each other both ways, whatever the distance.
    """
    family = tiny_family("gemma3")
    model, batch = family.model(), family.batch([1, 2])
    model.config.text_config.sliding_window = window = 6
    with salience.prune(model, "uniform", keep=0.34, positions=positions) as pruned:
        short = model(**batch).logits
    mask, ids = batch["attention_mask"], batch["input_ids"]
    stays = torch.zeros_like(mask, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    gone = ~stays & (mask == 1)
    stays &= mask == 1
    length = ids.shape[1]
    ordered = torch.ones(length, length, dtype=torch.bool).tril()
    image = ids == 3
    block = (image & ~torch.nn.functional.pad(image, (1, 0))[:, :-1]).cumsum(1)
    together = image[:, :, None] & image[:, None] & (block[:, :, None] == block[:, None])
    place = {"whole": torch.arange(length).expand_as(ids), "left": torch.arange(length) - gone.cumsum(1)}
    alone = torch.eye(length, dtype=torch.bool)  # a dropped token sees itself: nobody sees it
    logits = {}
    for name, where in place.items():
        near = ordered & (where[:, :, None] - where[:, None] < window)
        masks = {
            "full_attention": ((ordered | together) & stays[:, None]) | alone,
            "sliding_attention": ((near | together) & stays[:, None]) | alone,
        }
        given = {**batch, "attention_mask": {name: one[:, None] for name, one in masks.items()}}
        logits[name] = model(**given, position_ids=place[counted].clamp_min(0)).logits
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (mask[row, columns.clamp_min(0)] == 1)
        wanted = logits[counted][row, columns[real]]
        torch.testing.assert_close(short[row, real], wanted, atol=1e-5, rtol=0)  # float32, logits of order one
        assert (wanted - logits[other][row, columns[real]]).abs().max() > 1e-3  # and that it matters here
