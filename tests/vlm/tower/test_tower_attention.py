"""Received attention, the substitute for [CLS] attention: against the attention that eager layers give back."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.vlm.families import adapter_for
from salience.vlm.tower.tower_attention import SUBSTITUTE, received, seen_patches

# float32 products in another order, of shares below 1.
SHARES = 1e-6

CLIP_LIKE = {  # how many patches a side make up a token, and the modules that give attention back
    "llava_siglip": (1, "siglip.modeling_siglip.SiglipAttention"),
    "llava_onevision": (1, "siglip.modeling_siglip.SiglipAttention"),
    "paligemma": (1, "siglip.modeling_siglip.SiglipAttention"),
    "gemma3": (2, "siglip.modeling_siglip.SiglipAttention"),
    "idefics3": (2, "idefics3.modeling_idefics3.Idefics3VisionAttention"),
    "smolvlm": (2, "smolvlm.modeling_smolvlm.SmolVLMVisionAttention"),
}


def pictures_of(model: Any, family: Any, layout: list[int]) -> dict[str, Any]:
    arguments = adapter_for(model).image_arguments
    return {name: value for name, value in family.batch(layout).items() if name in arguments}


def eager_shares(model: Any, pictures: dict[str, Any], kind: str) -> list[Tensor]:
    """(images, patches) float32 for each attention of the tower: the mean over heads and queries, by its own output."""
    module, _, name = kind.rpartition(".")
    wanted = getattr(importlib.import_module(f"transformers.models.{module}"), name)
    seen: list[Tensor] = []
    handles = [
        m.register_forward_hook(lambda module, args, output: seen.append(output[1].mean((1, 2))))
        for m in model.modules()
        if isinstance(m, wanted)
    ]
    model.set_attn_implementation("eager")
    adapter_for(model).encode(**pictures)
    for handle in handles:
        handle.remove()
    return seen


def summed(patches: list[float], factor: int) -> list[float]:
    """Of a square grid of patches, the sum over each block of factor x factor."""
    side = math.isqrt(len(patches))
    tokens = [0.0] * (side // factor) ** 2
    for place, share in enumerate(patches):
        row, column = divmod(place, side)
        tokens[row // factor * (side // factor) + column // factor] += share
    return tokens


@pytest.mark.parametrize("name", CLIP_LIKE)
@torch.no_grad()
def test_is_the_mean_of_what_eager_attention_returns(tiny_family: Any, name: str) -> None:
    family = tiny_family(name)
    model = family.model()
    pictures = pictures_of(model, family, [1] if name == "llava_onevision" else [1, 2])
    encoded = adapter_for(model).encode(**pictures)
    factor, kind = CLIP_LIKE[name]
    layers = eager_shares(model, pictures, kind)
    paid = layers[-2 if name == "llava_siglip" else -1]  # of the layer whose output the model uses
    tokens = [summed(patches.tolist(), factor) for patches in paid[:1]]
    got = encoded.context(0, frozenset({"cls_attention"})).cls_attention
    assert got is not None
    torch.testing.assert_close(got, torch.tensor(tokens[0]), atol=SHARES, rtol=0)
    assert abs(float(got.sum()) - 1) < 1e-5
    assert float(got.std()) > 1e-4  # far from uniform, by much more than the tolerance


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v"])
@torch.no_grad()
def test_qwen_sees_each_frame_alone(tiny_family: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tiny_family(name)
    model = family.model()
    pictures = pictures_of(model, family, [1, 2])
    encoded = adapter_for(model).encode(**pictures)
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    original, shares = module.eager_attention_forward, []

    def eager(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        shares.append(output[1][0].mean((0, 1)))  # (patches of the frame,)
        return output

    monkeypatch.setattr(module, "eager_attention_forward", eager)
    model.set_attn_implementation("eager")
    adapter_for(model).encode(**pictures)
    frames = shares[-3:]  # of three pictures, the last layer's
    order = torch.arange(sum(len(frame) for frame in frames)).view(-1, 4)
    paid = torch.cat(frames)[order].sum(1)
    if name == "qwen2_5_vl":
        from transformers.vision_utils import get_vision_window_index

        index, _ = get_vision_window_index(
            pictures["image_grid_thw"], spatial_merge_size=2, window_size=56, patch_size=14
        )
        placed = torch.empty_like(paid)
        placed[index] = paid
        paid = placed
    got = [encoded.context(i, frozenset({"cls_attention"})).cls_attention for i in range(3)]
    torch.testing.assert_close(torch.cat([part for part in got if part is not None]), paid, atol=SHARES, rtol=0)
    assert all(abs(float(part.sum()) - 1) < 1e-5 for part in got if part is not None)


def test_by_a_loop_where_patches_are_missing() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, 7, 4, generator=draw) for _ in range(2))
    there = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    got = received(query, key, 0.5, there)
    for i in range(2):
        seen = [j for j in range(7) if there[i, j]]
        wanted = torch.zeros(7)
        for head in range(3):
            for q in seen:
                logits = torch.tensor([0.5 * float(query[i, head, q] @ key[i, head, j]) for j in seen])
                for j, share in zip(seen, logits.softmax(0), strict=True):
                    wanted[j] += share / 3 / len(seen)
        torch.testing.assert_close(got[i], wanted, atol=SHARES, rtol=0)


def test_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(1)
    query, key = (torch.randn(2, 3, 10, 4, generator=draw) for _ in range(2))
    whole = received(query, key, 0.5)
    monkeypatch.setattr("salience.vlm.tower.tower_attention._LOGITS_AT_A_TIME", 3 * 10 * 4)  # four queries at once
    torch.testing.assert_close(received(query, key, 0.5), whole, atol=SHARES, rtol=0)


def test_masks_in_every_form() -> None:
    there = torch.tensor([[True, True, False]])
    additive = torch.zeros(1, 1, 3, 3).masked_fill(~there[:, None, None], float("-inf"))
    for mask in (there, there.long(), there[:, None, None].expand(1, 1, 3, 3), additive):
        got = seen_patches(mask)
        assert got is not None
        assert torch.equal(got, there)
    assert seen_patches(None) is None


@pytest.mark.parametrize("name", ["llava_siglip", "qwen2_5_vl", "idefics3"])
@torch.no_grad()
def test_keys_are_those_of_the_layer(tiny_family: Any, name: str) -> None:
    family = tiny_family(name)
    model = family.model()
    pictures = pictures_of(model, family, [1])
    tower = adapter_for(model).tower
    layer = tower.blocks[-1].attn.qkv if name == "qwen2_5_vl" else tower.encoder.layers[-1].self_attn.k_proj
    layer = tower.encoder.layers[-2].self_attn.k_proj if name == "llava_siglip" else layer
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output))
    encoded = adapter_for(model).encode(**pictures)
    handle.remove()
    got = encoded.context(0, frozenset({"keys"})).keys
    assert got is not None
    if name == "llava_siglip":
        wanted = seen[0][0].view(9, 2, 12)
    elif name == "idefics3":
        wanted = seen[0][0].view(3, 2, 3, 2, 2, 12).mean((1, 3)).view(9, 2, 12)
    else:
        from transformers.vision_utils import get_vision_window_index

        index, _ = get_vision_window_index(
            pictures["image_grid_thw"], spatial_merge_size=2, window_size=56, patch_size=14
        )
        wanted = torch.empty(12, 2, 8)
        wanted[index] = seen[0].view(48, 3, 2, 8)[:, 1].view(12, 4, 2, 8).mean(1)
    # the same products, and means of four of them
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


class TestNeverSilently:
    def test_handle_trace_and_log_say_so(self, tiny_family: Any, caplog: pytest.LogCaptureFixture) -> None:
        family = tiny_family("llava_siglip")
        model, batch = family.model(), family.batch([1])
        with salience.prune(model, "fastervlm", keep=0.5) as pruned, torch.no_grad():
            model(**batch)
        assert pruned.substitute == pruned.trace.substitute == SUBSTITUTE
        assert SUBSTITUTE in pruned.explain()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert SUBSTITUTE in caplog.text

    @pytest.mark.parametrize(("name", "method"), [("llava", "fastervlm"), ("llava_siglip", "divprune")])
    def test_nothing_is_said_where_nothing_stands_in(
        self, tiny_family: Any, caplog: pytest.LogCaptureFixture, name: str, method: str
    ) -> None:
        with salience.prune(tiny_family(name).model(), method, keep=0.5) as pruned:
            assert pruned.substitute == ""
            assert (
                pruned.explain() == f"Visual tokens are pruned by {pruned.method.name!r} at keep=0.5, positions 'auto'."
            )
        assert caplog.text == ""

    def test_auto_takes_it(self, tiny_family: Any) -> None:
        with salience.prune(tiny_family("qwen2_vl").model(), "auto", keep=0.5) as pruned:
            assert (pruned.method.name, pruned.substitute) == ("cls-attention", SUBSTITUTE)

    def test_embeddings_have_none(self, tiny_family: Any) -> None:
        model = tiny_family("llava_siglip").model()
        model.config.vision_feature_layer = 0
        with pytest.raises(ValueError, match="whose attention can be read"):
            salience.prune(model, "fastervlm", keep=0.5)
