"""ToMe inside the tower against a loop written from the paper, picture by picture and token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.vlm.families import adapter_for
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.tome import ToMe, constant_schedule
from salience.vlm.tower.tower_merging import mean_keys

# float32 through two or three layers, sums in another order.
FLOAT32 = 1e-5

MERGING = ("llava", "llava_siglip", "paligemma")


def merged_by_a_loop(tower: Any, pixels: Tensor, counts: list[int], prefix: int) -> tuple[Tensor, list[list[int]]]:
    """One picture (3, H, W) -> what is left (k, d), and of each which patches are in it, the one it stands at first."""
    hidden = tower.embeddings(pixels[None])
    x = list((tower.pre_layrnorm(hidden) if prefix else hidden)[0])
    groups = [[i] for i in range(len(x) - prefix)]
    for layer, count in zip(tower.encoder.layers, counts, strict=False):
        attention = layer.self_attn
        heads, width = attention.num_heads, attention.head_dim
        rows = torch.stack([layer.layer_norm1(row) for row in x])
        query, key, value = (f(rows) for f in (attention.q_proj, attention.k_proj, attention.v_proj))
        sizes = [1] * prefix + [len(group) for group in groups]
        for i in range(len(x)):
            heads_out = []
            for h in range(heads):
                part = slice(h * width, (h + 1) * width)
                logits = [
                    float(query[i, part] @ key[j, part]) / math.sqrt(width) + math.log(sizes[j]) for j in range(len(x))
                ]
                shares = torch.tensor(logits).softmax(0)
                heads_out.append((shares[:, None] * value[:, part]).sum(0))
            x[i] = x[i] + attention.out_proj(torch.cat(heads_out))
        means = key[prefix:].view(len(groups), heads, width).mean(1)
        alike = torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=-1)
        proposals = []
        for i in range(0, len(groups), 2):
            j = max(range(1, len(groups), 2), key=lambda j: float(alike[i, j]))
            proposals.append((float(alike[i, j]), i, j))
        merged = {i: [i] for i in range(len(groups))}
        for _, i, j in sorted(proposals, key=lambda p: -p[0])[:count]:
            merged[j] += merged.pop(i)
        patches = x[prefix:]
        left = [
            sum(len(groups[i]) * patches[i] for i in members) / sum(len(groups[i]) for i in members)
            for members in merged.values()
        ]
        groups = [[patch for i in members for patch in groups[i]] for members in merged.values()]
        x = [*x[:prefix], *left]
        x = [row + layer.mlp(layer.layer_norm2(row)) for row in x]
    return torch.stack(x[prefix:]), groups


@pytest.mark.parametrize("tokens", [5, 4])
@pytest.mark.parametrize("name", MERGING)
@torch.no_grad()
def test_is_the_papers(tiny_family: Any, name: str, tokens: int) -> None:
    """The features that are projected, where each stands, what the trace says is in it."""
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    adapter = adapter_for(model)
    layers = adapter.merging_layers
    if name == "llava_siglip" and tokens == 4:
        tokens = 7  # its one layer can at most halve nine
    counts = constant_schedule(9, tokens, layers)
    assert sum(counts) == 9 - tokens
    encoded = adapter.encode_merged(lambda n, layers: counts, batch["pixel_values"])
    with salience.prune(model, "tome", tokens=tokens) as pruned:
        model(**batch)
    prefix = 1 if name == "llava" else 0
    for picture, image in enumerate(pruned.trace.images):
        wanted, groups = merged_by_a_loop(adapter.tower, batch["pixel_values"][picture], list(counts), prefix)
        if name == "paligemma":
            wanted = adapter.tower.post_layernorm(wanted)
        assert image.kept.tolist() == [group[0] for group in groups]
        torch.testing.assert_close(encoded.views[picture][image.kept], wanted, atol=FLOAT32, rtol=0)
        assert image.merge is not None
        for place, group in enumerate(groups):
            assert sorted(image.merge.sources(place).tolist()) == (sorted(group) if len(group) > 1 else [])
            of_it = image.merge.weight[image.merge.target == place]
            assert of_it.tolist() == pytest.approx([1 / len(group)] * len(of_it))


@pytest.mark.parametrize("name", MERGING)
@torch.no_grad()
def test_all_tokens_run_the_tower_as_it_is(tiny_family: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    wanted = model(**batch).logits
    monkeypatch.setattr("salience.ops.token_merging.soft_match", None)  # nothing of it is run
    for budget in ({"keep": 1}, {"tokens": 9}):
        with salience.prune(model, "tome", **budget) as pruned:  # type: ignore[arg-type]
            assert torch.equal(model(**batch).logits, wanted)
        assert all(image.merge is None for image in pruned.trace.images)


@torch.no_grad()
def test_no_layer_merging_is_the_towers_own_run(tiny_family: Any) -> None:
    for name in MERGING:
        family = tiny_family(name)
        adapter, batch = adapter_for(family.model()), family.batch([1, 2])
        plain = adapter.encode(batch["pixel_values"])
        run = adapter.encode_merged(lambda n, layers: [0] * layers, batch["pixel_values"])
        assert all(one.merge is None and len(one.kept) == 9 for one in run.left)
        for a, b in zip(run.views, plain.views, strict=True):
            torch.testing.assert_close(a, b, atol=FLOAT32, rtol=0)


@torch.no_grad()
def test_the_trace_draws_outlines(tiny_family: Any) -> None:
    from PIL import Image

    family = tiny_family("llava")
    model, batch = family.model(), family.batch([1])
    with salience.prune(model, "tome", tokens=4) as pruned:
        model(**batch)
    image = pruned.trace.images[0]
    assert image.merge is not None
    drawn = image.draw(Image.new("RGB", (42, 42), (200, 100, 40)))
    for cell in range(9):
        corner, inside = (drawn.getpixel((cell % 3 * 14 + d, cell // 3 * 14 + d)) for d in (0, 7))
        if cell in image.kept[image.merge.target].tolist():
            assert corner != inside
        elif cell not in image.merge.source.tolist():
            assert corner == inside


def test_gradients_reach_the_tower(tiny_family: Any) -> None:
    family = tiny_family("llava")
    model, batch = family.model(), family.batch([1])
    with salience.prune(model, "tome", keep=0.5):
        model(**batch).logits.square().mean().backward()
    layer = model.model.vision_tower.encoder.layers[0]
    assert float(layer.mlp.fc1.weight.grad.abs().max()) > 0


@torch.no_grad()
def test_keys_of_a_layer_that_is_wrapped(tiny_family: Any) -> None:
    """A LoRA or quantised projection is called, a plain one averaged over heads beforehand: the same keys."""
    attention = tiny_family("llava").model().model.vision_tower.encoder.layers[0].self_attn
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    plain = mean_keys(attention, x)
    attention.k_proj = torch.nn.Sequential(attention.k_proj)
    torch.testing.assert_close(mean_keys(attention, x), plain, atol=1e-6, rtol=0)  # products in another order


class TestRefused:
    @pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "idefics3", "internvl", "llava_next", "mistral3"])
    def test_towers_whose_grid_is_needed(self, tiny_family: Any, name: str) -> None:
        with pytest.raises(ValueError, match="inside the vision tower") as caught:
            salience.prune(tiny_family(name).model(), "tome", keep=0.5)
        assert "; use 'visionzip'" in str(caught.value)
        assert ". " not in str(caught.value).rstrip(".")

    def test_fewer_than_halving_leaves(self, tiny_family: Any) -> None:
        with pytest.raises(ValueError, match=r"each of 2 layers, which leaves 3 of 9, not 2\."):
            salience.prune(tiny_family("llava").model(), "tome", tokens=2)

    def test_mass(self, tiny_family: Any) -> None:
        with pytest.raises(ValueError, match="needs a method with scores"):
            salience.prune(tiny_family("llava").model(), "tome", mass=0.5)

    def test_a_kernel_that_adds_nothing_to_logits(self, tiny_family: Any) -> None:
        family = tiny_family("llava")
        model, batch = family.model(), family.batch([1])
        model.model.vision_tower.config._attn_implementation_internal = "flash_attention_2"
        with salience.prune(model, "tome", keep=0.5), pytest.raises(ValueError, match="use sdpa or eager"):
            model(**batch)

    def test_features_that_are_encoded_already(self, tiny_family: Any) -> None:
        family = tiny_family("llava")
        encoded = adapter_for(family.model()).encode(family.batch([1])["pixel_values"])
        with pytest.raises(ValueError, match="merges tokens while the vision tower runs"):
            ToMe().select(encoded.context(0), Budget(keep=0.5))

    def test_several_layers_features(self, tiny_family: Any) -> None:
        model = tiny_family("llava").model()
        model.config.vision_feature_layer = [1, 2]
        with pytest.raises(ValueError, match="not one layer's output"):
            salience.prune(model, "tome", keep=0.5)


@pytest.mark.parametrize(("n", "k", "layers", "counts"), [
    (576, 576, 23, (0,) * 23),
    (576, 116, 23, (20,) * 23),
    (576, 144, 23, (19,) * 22 + (14,)),
    (10, 3, 2, (4, 3)),
    (16, 1, 4, (8, 4, 2, 1)),
])  # fmt: skip
def test_schedule(n: int, k: int, layers: int, counts: tuple[int, ...]) -> None:
    assert constant_schedule(n, k, layers) == counts
