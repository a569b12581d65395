"""Published methods on a model: the whole sequence, dropped tokens masked and merged ones in their places."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience
from salience.vlm.families import adapter_for
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.compose import then, union
from salience.vlm.methods.divprune import DivPrune
from salience.vlm.methods.prumerge import PruMerge
from salience.vlm.methods.visionzip import VisionZip

METHODS = {
    "divprune": "divprune",
    "vispruner": "vispruner",
    "fastervlm": "fastervlm",
    "visionzip": VisionZip(contextual=0.5),  # enough to merge among five tokens
    "prumerge": "prumerge",
    "prumerge+": "prumerge+",
    "then": then(VisionZip(contextual=0.5), DivPrune(), keep=0.5),
    "union": union(PruMerge(neighbours=4), ClsAttention()),
}

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@torch.no_grad()
def test_equals_masked_sequence_with_merged_features(model: Any, make_batch: Any, oracle: Any, method: Any) -> None:
    batch, adapter = make_batch([1, 2]), adapter_for(model)
    with salience.prune(model, method, tokens=5) as pruned:
        short = model(**batch).logits
    features = adapter.encode(batch["pixel_values"]).features.clone()
    for picture, image in zip(features, pruned.trace.images, strict=True):
        if image.merge is None:
            continue
        new = picture.clone()
        for target in set(image.merge.target.tolist()):
            chosen = image.merge.target == target
            new[image.kept[target]] = (image.merge.weight[chosen, None] * picture[image.merge.source[chosen]]).sum(0)
        assert (new - picture).abs().max() > 0.01  # far more than the tolerance
        picture.copy_(new)
    full = oracle(model=model, batch={**batch}, pruned=pruned, positions="original")
    visual = adapter.encoder_outputs(list(adapter.project(features)))
    wanted = model(
        input_ids=batch["input_ids"], attention_mask=full.mask(), position_ids=full.position_ids(generating=False),
        mm_encoder_outputs=visual,
    ).logits  # fmt: skip
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        torch.testing.assert_close(short[row, real], wanted[row, columns[real]], atol=FLOAT32, rtol=0)


def test_merging_methods_do_merge(model: Any, make_batch: Any) -> None:
    for name in ("visionzip", "prumerge", "prumerge+", "then", "union"):
        with torch.no_grad(), salience.prune(model, METHODS[name], tokens=5) as pruned:
            model(**make_batch([1]))
        assert pruned.trace.images[0].merge is not None, name


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@torch.no_grad()
def test_all_tokens_give_the_same_bits(model: Any, make_batch: Any, method: Any) -> None:
    batch = make_batch([1, 2])
    wanted = model(**batch).logits
    with salience.prune(model, method, keep=1) as pruned:
        assert torch.equal(model(**batch).logits, wanted)
    assert all(image.merge is None and len(image.kept) == 16 for image in pruned.trace.images)


@torch.no_grad()
def test_keys_are_the_layer_s_own(model: Any) -> None:
    pixels, seen = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)), []
    tower = model.model.vision_tower
    layer = getattr(tower, "vision_model", tower).encoder.layers[
        -2
    ]  # of three: the one whose output is hidden_states[-2]
    handle = layer.self_attn.k_proj.register_forward_hook(lambda module, args, output: seen.append(output))
    encoded = adapter_for(model).encode(pixels)
    handle.remove()
    keys = encoded.keys()
    assert keys[0].shape == (16, 2, 12)
    # float32 sums over one row less, blocked in another way
    torch.testing.assert_close(torch.stack(list(keys)).flatten(2), seen[0][:, 1:], atol=1e-5, rtol=0)
    assert encoded.keys() is keys


@torch.no_grad()
def test_merging_on_views_of_several_sizes(tiny_family: Any) -> None:
    """LLaVA-NeXT: tiles, newlines between rows, and merged rows in their places."""
    family = tiny_family("llava_next")
    model, batch = family.model(), family.batch([1, 2])
    wanted = model(**batch).logits
    with salience.prune(model, "prumerge+", keep=1):
        assert torch.equal(model(**batch).logits, wanted)
    with salience.prune(model, "prumerge+", keep=0.5) as pruned:
        short = model(**batch).logits
    assert short.shape[1] < wanted.shape[1]
    assert all(image.merge is not None for image in pruned.trace.images)


@torch.no_grad()
def test_mass_within_bounds(model: Any, make_batch: Any) -> None:
    counts = {}
    for bounds in ({}, {"min": 6}, {"max": 3}, {"min": 4, "max": 4}):
        with salience.prune(model, "cls-attention", mass=0.35, **bounds) as pruned:  # type: ignore[arg-type]
            model(**make_batch([1, 1, 2], seed=3))
        counts[tuple(bounds.items())] = [len(image.kept) for image in pruned.trace.images]
    free = counts.pop(())
    assert min(free) < 6 < 16
    assert max(free) > 3
    assert counts == {
        (("min", 6),): [max(6, k) for k in free],
        (("max", 3),): [min(3, k) for k in free],
        (("min", 4), ("max", 4)): [4] * 4,
    }


class TestDraw:
    def trace(self, model: Any, batch: Any, method: Any, tokens: int = 4) -> Any:
        with torch.no_grad(), salience.prune(model, method, tokens=tokens) as pruned:
            model(**batch)
        return pruned.trace.images[0]

    def picture(self) -> Any:
        from PIL import Image

        return Image.new("RGB", (56, 56), (200, 100, 40))

    def test_kept_cells_are_bright(self, model: Any, make_batch: Any) -> None:
        image = self.trace(model, make_batch([1]), "cls-attention")
        drawn = image.draw(self.picture())
        for cell in range(16):
            pixel = drawn.getpixel((cell % 4 * 14 + 7, cell // 4 * 14 + 7))
            assert (pixel == (200, 100, 40)) == (cell in image.kept.tolist())
            assert sum(pixel) == 340 or sum(pixel) < 220

    def test_scores_are_a_heat_map(self, model: Any, make_batch: Any) -> None:
        image = self.trace(model, make_batch([1]), "cls-attention")
        drawn = image.draw(self.picture(), scores=True)
        best, worst = (int(i) for i in (image.scores.argmax(), image.scores.argmin()))
        (red, _, blue), (red_worst, _, blue_worst) = (
            drawn.getpixel((cell % 4 * 14 + 7, cell // 4 * 14 + 7)) for cell in (best, worst)
        )
        assert red > blue
        assert blue_worst > red_worst

    def test_merged_cells_are_outlined(self, model: Any, make_batch: Any) -> None:
        image = self.trace(model, make_batch([1]), VisionZip(contextual=0.5))
        drawn = image.draw(self.picture())
        for target in set(image.merge.target.tolist()):
            group = {*image.merge.sources(target).tolist(), int(image.kept[target])}
            for cell in group:
                x, y = cell % 4 * 14, cell // 4 * 14
                inside = drawn.getpixel((x + 7, y + 7))
                assert (drawn.getpixel((x, y + 7)) != inside) == (
                    cell % 4 == 0 or cell - 1 not in group or cell == int(image.kept[target])
                )
        for cell in set(range(16)) - set(image.merge.source.tolist()):
            corner, inside = (drawn.getpixel((cell % 4 * 14 + d, cell // 4 * 14 + d)) for d in (0, 7))
            assert corner == inside
        assert drawn.size == (56, 56)

    def test_a_method_without_scores(self, model: Any, make_batch: Any) -> None:
        with pytest.raises(ValueError, match="scores can't be drawn"):
            self.trace(model, make_batch([1]), "uniform").draw(self.picture(), scores=True)


@pytest.mark.parametrize("method", ["cls-attention", "visionzip", "tome"])
def test_keys_that_a_hook_changes(make_model: Any, make_batch: Any, method: str) -> None:
    """The tower's layers are called, hooks included; their weights are not read."""
    louder, scaled, batch = make_model(), make_model(), make_batch([1, 1])
    for one, other in zip(
        louder.model.vision_tower.encoder.layers, scaled.model.vision_tower.encoder.layers, strict=True
    ):
        change = torch.randn(24, generator=torch.Generator().manual_seed(0))
        one.self_attn.k_proj.register_forward_hook(lambda module, args, y, change=change: y * change)
        with torch.no_grad():
            other.self_attn.k_proj.weight.mul_(change[:, None])
            other.self_attn.k_proj.bias.mul_(change)
    kept = []
    for model in (louder, scaled):
        with torch.no_grad(), salience.prune(model, method, keep=0.5) as pruned:
            model(**batch)
        kept.append([image.kept.tolist() for image in pruned.trace.images])
    assert kept[0] == kept[1]
