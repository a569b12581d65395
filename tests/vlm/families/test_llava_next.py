"""LLaVA-NeXT and LLaVA-OneVision: two views a picture, newlines with their rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience
from salience.vlm.families import adapter_for


@pytest.fixture(scope="module", params=["llava_next", "llava_onevision"])
def family(request: pytest.FixtureRequest, tiny_family: Any) -> Any:
    return tiny_family(request.param)


@pytest.fixture(scope="module")
def model(family: Any) -> Any:
    return family.model()


@torch.no_grad()
def test_views_are_the_whole_and_the_large_picture(model: Any, family: Any) -> None:
    with salience.prune(model, "uniform", keep=1) as pruned:
        model(**family.batch([1, 2]))
    shapes = [(image.picture, image.grid.rows, image.grid.columns) for image in pruned.trace.images]
    large = [(3, 6), (6, 3), (4, 6) if family.name == "llava_next" else (3, 5)]  # the last without its padding, scaled
    assert shapes == [
        (0, 3, 3), (0, *large[0]), (1, 3, 3), (1, *large[1]), (2, 3, 3), (2, *large[2])
    ]  # fmt: skip


class Corner(salience.Method):
    """Keeps the first tokens: of the large view the first rows."""

    def score(self, ctx: Any) -> torch.Tensor:
        return -torch.arange(ctx.features.shape[0]).float()


@torch.no_grad()
def test_newlines_stay_with_their_rows(model: Any, family: Any) -> None:
    batch = family.batch([1])  # 9 tokens, then three rows of 6 and a newline each
    with salience.prune(model, Corner(), tokens=8) as pruned:
        model(**batch)
    start = int((batch["input_ids"][0] == 3).nonzero()[0])
    kept = [int(c) - start for c in pruned.trace.columns[0] if batch["input_ids"][0, c] == 3]
    whole, first, second = list(range(8)), list(range(9, 15)), [16, 17]
    assert kept == [*whole, *first, 15, *second, 22]  # 15 and 22: the newlines of rows 0 and 1; not 29, that of row 2


@torch.no_grad()
def test_a_newline_is_the_models(model: Any, family: Any) -> None:
    adapter, batch = adapter_for(model), family.batch([1])
    encoded = adapter.encode(batch["pixel_values"], image_sizes=batch["image_sizes"])
    filled = encoded.fill(1, torch.tensor([0, 17]), encoded.projected()[1][[0, 17]])
    assert torch.equal(filled[[1, 3]], model.model.image_newline.expand(2, -1))
    assert torch.equal(filled[[0, 2]], encoded.projected()[1][[0, 17]])


def test_sizes_are_asked_for(model: Any, family: Any) -> None:
    batch = family.batch([1])
    del batch["image_sizes"]
    with salience.prune(model, "uniform", keep=0.5), pytest.raises(ValueError, match="image_sizes is missing"):
        model(**batch)


@torch.no_grad()
def test_tiles_that_do_not_match_the_sizes(model: Any, family: Any) -> None:
    batch = family.batch([1])
    batch["pixel_values"] = batch["pixel_values"][:, :-1]
    with salience.prune(model, "uniform", keep=0.5), pytest.raises(ValueError, match="the 3 tiles that image_sizes"):
        model(**batch)


@torch.no_grad()
def test_cls_attention_is_each_tiles_own(tiny_family: Any) -> None:
    family = tiny_family("llava_next")
    model, batch = family.model(), family.batch([1])
    adapter = adapter_for(model)
    encoded = adapter.encode(batch["pixel_values"], image_sizes=batch["image_sizes"])
    contexts = [encoded.context(i, frozenset({"cls_attention"})).cls_attention for i in range(2)]
    model.set_attn_implementation("eager")
    seen = model.model.vision_tower(batch["pixel_values"][0], output_attentions=True).attentions[1][:, :, 0, 1:].mean(1)
    # float32 products in another order, shares below 1
    torch.testing.assert_close(contexts[0], seen[0], atol=1e-6, rtol=0)
    large = torch.cat([seen[1].reshape(3, 3), seen[2].reshape(3, 3)], dim=1).flatten()  # two tiles side by side
    torch.testing.assert_close(contexts[1], large, atol=1e-6, rtol=0)


@torch.no_grad()
def test_pictures_together_are_left_whole(tiny_family: Any) -> None:
    """OneVision cuts up a lone picture only, when it is told how many there are."""
    family = tiny_family("llava_onevision")
    model = family.model()
    pixels = torch.randn(2, 3, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[9, *[3] * 10, 10, *[3] * 10, 11]])  # nine tokens and one newline each
    batch = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels,
        "image_sizes": torch.tensor([[40, 80], [84, 30]]), "batch_num_images": torch.tensor([2]),
    }  # fmt: skip
    wanted = model(**batch).logits
    with salience.prune(model, "uniform", keep=1) as pruned:
        assert torch.equal(model(**batch).logits, wanted)
    assert [(image.picture, image.grid.n) for image in pruned.trace.images] == [(0, 9), (1, 9)]
    with salience.prune(model, "uniform", keep=0.25) as pruned:
        model(**batch)
    assert [int((ids[0, c] == 3).sum()) for c in pruned.trace.columns] == [2 * (2 + 1)]  # two tokens and the newline
