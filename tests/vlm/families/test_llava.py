"""LLaVA's stages are the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salience.vlm.families import adapter_for, same_tower


@pytest.fixture(scope="module")
def model(tiny_llava: Any) -> Any:
    model = tiny_llava(side=56, layers=3)
    with torch.no_grad():
        for parameter in model.model.vision_tower.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)  # from the initial .02: [CLS] attention far from uniform
    return model


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", [-1, -2, 1, 0, [-2], [1, -1]], ids=str)
@torch.no_grad()
def test_encode_and_project_are_get_image_features(model: Any, pixels: torch.Tensor, layer: Any) -> None:
    adapter = adapter_for(model)
    encoded = adapter.encode(pixels, vision_feature_layer=layer)
    assert encoded.features.shape[:2] == (2, 16)
    assert (encoded.grid.rows, encoded.grid.columns) == (4, 4)
    if layer in (-1, -2, 1, [-2]):  # the model's own forward fails on layer 0, which it takes for "no hidden states"
        wanted = model.get_image_features(pixels, vision_feature_layer=layer, return_dict=True).pooler_output
        assert torch.equal(adapter.project(encoded.features), torch.stack(list(wanted)))
    else:
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        layers = [layer] if isinstance(layer, int) else layer
        assert torch.equal(encoded.features, torch.cat([states[i][:, 1:] for i in layers], dim=-1))


@pytest.mark.parametrize("layer", [-1, -2, 1])
@torch.no_grad()
def test_cls_attention_is_what_eager_attention_returns(tiny_llava: Any, pixels: torch.Tensor, layer: int) -> None:
    model = tiny_llava(side=56, layers=3)
    encoded = adapter_for(model).encode(pixels, vision_feature_layer=layer)
    assert model.config.vision_config._attn_implementation == "sdpa"
    got = encoded.cls_attention()
    model.set_attn_implementation("eager")
    index = layer % 4  # hidden state 0 is the embeddings', so hidden state i is layer i - 1's output
    wanted = model.model.vision_tower(pixels, output_attentions=True).attentions[index - 1][:, :, 0, 1:].mean(1)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)  # float32 products in another order, shares below 1
    assert encoded.cls_attention() is got


def test_cls_attention_in_bfloat16_is_close(model: Any, pixels: torch.Tensor, tiny_llava: Any) -> None:
    exact = adapter_for(model).encode(pixels).cls_attention()
    half = tiny_llava(side=56, layers=3)
    half.load_state_dict(model.state_dict())
    rough = adapter_for(half.to(torch.bfloat16)).encode(pixels).cls_attention()
    assert rough.dtype == torch.float32
    # two layers of 8-bit numbers feed a softmax whose inputs are of order one: a few percent of the largest share
    assert (rough - exact).abs().max() < 0.05 * exact.max()


def test_the_embeddings_have_no_cls_attention(model: Any, pixels: torch.Tensor) -> None:
    encoded = adapter_for(model).encode(pixels, vision_feature_layer=0)
    with pytest.raises(ValueError, match="which can't be read in this model or layer"):
        encoded.cls_attention()


@torch.no_grad()
def test_embed_is_what_the_language_model_gets(model: Any, pixels: torch.Tensor) -> None:
    adapter, seen = adapter_for(model), []
    ids = torch.tensor([[5, 6] + [3] * 16 + [7], [4] + [3] * 16 + [8, 9]])
    handle = adapter.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    logits = model(input_ids=ids, pixel_values=pixels).logits
    handle.remove()
    projected = list(adapter.project(adapter.encode(pixels).features))
    embeddings = adapter.embed(ids, projected)
    assert torch.equal(embeddings, seen[0])
    assert torch.equal(adapter.lm_head(adapter.language_model(inputs_embeds=embeddings).last_hidden_state), logits)
    assert torch.equal(model(input_ids=ids, mm_encoder_outputs=adapter.encoder_outputs(projected)).logits, logits)


def test_digest_depends_on_the_picture_alone(model: Any, pixels: torch.Tensor) -> None:
    adapter = adapter_for(model)
    a, b = adapter.encode(pixels), adapter.encode(pixels.flip(0))
    assert a.digest(0) == b.digest(1) != a.digest(1)
    assert 0 <= a.digest(0) < 2**32


def test_context_holds_what_is_needed(model: Any, pixels: torch.Tensor) -> None:
    encoded = adapter_for(model).encode(pixels)
    bare = encoded.context(1)
    assert (bare.cls_attention, bare.projected, bare.digest, bare.image_index) == (None, None, None, 1)
    full = encoded.context(1, frozenset({"cls_attention", "projected", "digest"}))
    assert full.cls_attention is not None
    assert full.cls_attention.shape == (16,)
    assert full.projected is not None
    assert full.projected.shape == (16, 32)
    assert full.digest == encoded.digest(1)


def test_hooks_go_also_when_the_tower_fails(model: Any) -> None:
    def hooks() -> list[int]:
        modules = model.model.vision_tower.modules()
        return [id(hook) for m in modules for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]

    before = hooks()
    with pytest.raises(ValueError, match="doesn't match model"):
        adapter_for(model).encode(torch.randn(1, 3, 70, 70))
    assert hooks() == before


class TestFingerprint:
    def test_same_in_any_dtype(self, tiny_llava: Any) -> None:
        prints = [
            adapter_for(tiny_llava(side=56, layers=3).to(dtype)).fingerprint()
            for dtype in (torch.float32, torch.bfloat16, torch.float16)
        ]
        assert same_tower(prints[0], prints[1])
        assert same_tower(prints[0], prints[2])

    def test_other_weights_or_shape_differ(self, tiny_llava: Any) -> None:
        one, other, deeper = (
            adapter_for(tiny_llava(side=56, layers=layers, seed=seed)).fingerprint()
            for layers, seed in ((3, 0), (3, 1), (4, 0))
        )
        assert not same_tower(one, other)
        assert not same_tower(one, deeper)
        assert not same_tower(None, one)
        assert not same_tower({}, one)

    def test_fits_json(self, model: Any) -> None:
        import json

        mark = adapter_for(model).fingerprint()
        assert same_tower(json.loads(json.dumps(mark)), mark)
