"""A family without a file of its own: works where its signature fits, else says what it lacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience
from salience.vlm.families import adapter_for
from salience.vlm.families.fallback import nearest_square


@pytest.mark.parametrize("name", ["aya_vision", "mistral3"])
@torch.no_grad()
def test_features_are_the_projected_tokens(tiny_family: Any, name: str) -> None:
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    adapter = adapter_for(model)
    pictures = {name: value for name, value in batch.items() if name in adapter.image_arguments}
    encoded = adapter.encode(**pictures)
    for view, tokens in zip(
        encoded.views, model.get_image_features(**pictures, return_dict=True).pooler_output, strict=True
    ):
        assert torch.equal(view, tokens)
        assert view.shape[1] == adapter.d_features == 32
    assert adapter.project(encoded.views[0]) is encoded.views[0]
    assert len({encoded.digest(i) for i in range(3)}) == 3


@pytest.mark.parametrize(("n", "shape"), [(9, (3, 3)), (12, (3, 4)), (7, (1, 7)), (576, (24, 24))])
def test_the_grid_is_nearly_square(n: int, shape: tuple[int, int]) -> None:
    grid = nearest_square(n)
    assert (grid.rows, grid.columns) == shape


class Base:
    """A base model of an unknown family."""

    def get_image_features(self, pixel_values: Any, **kwargs: Any) -> None: ...


class Model:
    """A model that lacks nothing; each test takes one thing away."""

    def __init__(self) -> None:
        self.base_model: Any = Base()
        self.config: Any = type("Config", (), {"model_type": "unheard_of", "image_token_id": 3})()

    def generate(self) -> None: ...

    def forward(self, input_ids: Any, mm_encoder_outputs: Any = None) -> None: ...


def without_head(model: Any) -> None:
    model.generate = None


def without_seam(model: Any) -> None:
    model.forward = lambda input_ids: None


def without_token(model: Any) -> None:
    del type(model.config).image_token_id


def with_patches(model: Any) -> None:
    model.base_model = type("B", (), {"get_image_features": lambda self, image_patches: None})()


def with_axes(model: Any) -> None:
    model.base_model.get_rope_index = print


@pytest.mark.parametrize(("change", "sentence"), [
    (without_head, "a language model head"), (without_seam, "a forward that takes mm_encoder_outputs"),
    (without_token, "an image_token_id"), (with_patches, "takes pixel_values"), (with_axes, "get_rope_index"),
])  # fmt: skip
def test_what_is_missing_is_named(change: Any, sentence: str) -> None:
    model = Model()
    adapter_for(model)  # lacks nothing
    change(model)
    with pytest.raises(ValueError, match=sentence) as caught:
        salience.prune(model, "uniform", keep=0.5)
    text = str(caught.value)
    assert text.startswith("model is a Model, of a family that is not known here")
    assert text.endswith(".")
    assert "\n" not in text


def test_a_model_without_pictures() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    with pytest.raises(ValueError, match=r"unlike LlamaForCausalLM of type 'llama'") as caught:
        salience.prune(LlamaForCausalLM(config), "uniform", keep=0.5)
    assert "qwen2_vl" in str(caught.value)
