"""Idefics3, SmolVLM, InternVL: one entry of the tower's output may be a whole sample, yet no tile is starved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience
from salience.vlm.families import adapter_for


class Brightest(salience.Method):
    """Scores that lie wholly on the first tile, were tiles ranked together."""

    def score(self, ctx: Any) -> torch.Tensor:
        return ctx.features.sum(-1) * 0 - ctx.image_index


@pytest.mark.parametrize("name", ["idefics3", "smolvlm", "internvl"])
@torch.no_grad()
def test_no_tile_is_starved(tiny_family: Any, name: str) -> None:
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    with salience.prune(model, Brightest(), keep=0.3) as pruned:
        model(**batch)
    assert [image.kept.numel() for image in pruned.trace.images] == [3] * 6  # of 3 + 1 + 2 tiles


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
@torch.no_grad()
def test_padding_tiles_are_none(tiny_family: Any, name: str) -> None:
    """Both rows hold three tiles; of a row with one, the two zero ones are no views."""
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    one = {"pixel_values": batch["pixel_values"].clone()}
    one["pixel_values"][0, 1:] = 0
    output = model.get_image_features(**one, return_dict=True)
    assert [len(rows) for rows in output.pooler_output] == [9, 27]  # an entry a sample
    encoded = adapter_for(model).encode(**one)
    assert encoded.sizes == [9] * 4
    for view, pixels in enumerate([one["pixel_values"][0, 0], *one["pixel_values"][1]]):
        assert torch.equal(encoded.pixels[view], pixels)


@torch.no_grad()
def test_internvl_reads_a_plain_tensor_of_unequal_counts(tiny_family: Any) -> None:
    """As the beams of generate would repeat it, were all tiles of one count; ours are not."""
    family = tiny_family("internvl")
    model, batch = family.model(), family.batch([1, 2])
    torch.manual_seed(5)
    scorer = salience.Scorer(adapter_for(model).d_features)
    seen: list[torch.Tensor] = []
    with salience.prune(model, scorer, mass=0.5) as pruned:
        handle = model.model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["mm_encoder_outputs"]["image"].pooler_output)
            if kwargs.get("mm_encoder_outputs") else None,
            with_kwargs=True,
        )  # fmt: skip
        model.generate(**batch, num_beams=2, max_new_tokens=1)
        handle.remove()
    counts = [image.kept.numel() for image in pruned.trace.images]
    assert len(set(counts)) > 1
    assert seen[0].shape == (1, 2 * sum(counts), 32)
    first = sum(counts[:3])  # the first row's three tiles, twice, then the second row's
    assert torch.equal(seen[0][0, :first], seen[0][0, first : 2 * first])


@pytest.mark.parametrize(("name", "shape"), [("idefics3", (3, 84, 84)), ("internvl", (3, 84, 84))])
def test_pixels_of_a_wrong_shape(tiny_family: Any, name: str, shape: tuple[int, ...]) -> None:
    family = tiny_family(name)
    batch = {**family.batch([1]), "pixel_values": torch.randn(*shape)}
    with salience.prune(family.model(), "uniform", keep=0.5) as pruned, pytest.raises(ValueError, match="pixel_values"):
        pruned._model(**batch)


@torch.no_grad()
def test_internvl_cls_attention_is_the_sum_over_a_tokens_patches(tiny_family: Any) -> None:
    family = tiny_family("internvl")
    model, batch = family.model(), family.batch([1])
    encoded = adapter_for(model).encode(batch["pixel_values"])
    got = encoded.cls_attention()
    model.set_attn_implementation("eager")
    seen = model.model.vision_tower(batch["pixel_values"], output_attentions=True).attentions[-1][:, :, 0, 1:].mean(1)
    # the model's own shuffle puts a token's four patches side by side
    shuffled = model.model.pixel_shuffle(seen.reshape(3, 6, 6, 1), scale_factor=0.5).flatten(1, 2)
    torch.testing.assert_close(got, shuffled.sum(-1), atol=1e-6, rtol=0)  # float32 products in another order


@torch.no_grad()
def test_internvl_keys_are_the_means_over_a_tokens_patches(tiny_family: Any) -> None:
    family = tiny_family("internvl")
    model, batch = family.model(), family.batch([1])
    seen: list[torch.Tensor] = []
    attention = model.model.vision_tower.encoder.layer[-1].attention
    handle = attention.k_proj.register_forward_hook(lambda module, args, output: seen.append(output))
    model.get_image_features(batch["pixel_values"])
    handle.remove()
    keys = adapter_for(model).encode(batch["pixel_values"]).context(1, frozenset({"keys"})).keys
    patches = seen[0][1, 1:].reshape(6, 6, 2, 12)  # of the second tile, two heads
    assert keys.shape == (9, 2, 12)
    # token 5 is the cell (1, 2) of three by three; float32 means of the same four numbers
    torch.testing.assert_close(keys[5], patches[2:4, 4:6].flatten(0, 1).mean(0), atol=1e-6, rtol=0)
