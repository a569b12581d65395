"""Bad input is a ValueError of one sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.core.transformers_names import cache_of_output, passed_cache
from salience.vlm.methods.fastv import FastV


def one_sentence(caught: Any) -> None:
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ". " not in text.rstrip(".")


@pytest.mark.parametrize("budget", [
    {"keep": 0}, {"keep": 1.2}, {"keep": math.nan}, {"keep": -0.1}, {"keep": "half"}, {"keep": True},
    {"tokens": 0}, {"tokens": 17}, {"tokens": 2.5}, {"tokens": True}, {"mass": 0}, {"mass": 1.01},
    {"keep": 0.5, "tokens": 4}, {"keep": 0.5, "mass": 0.5}, {},
], ids=str)  # fmt: skip
def test_budget(model: Any, budget: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"keep|tokens|mass") as caught:
        salience.prune(model, "uniform", **budget)
    one_sentence(caught)
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("method", ["random", "uniform"])
def test_mass_without_scores(model: Any, method: str) -> None:
    with pytest.raises(ValueError, match="needs a method with scores") as caught:
        salience.prune(model, method, mass=0.5)
    one_sentence(caught)


def test_positions(model: Any) -> None:
    with pytest.raises(ValueError, match="positions must be 'auto', 'original' or 'compact'") as caught:
        salience.prune(model, "uniform", keep=0.5, positions="packed")  # type: ignore[arg-type]
    one_sentence(caught)


@pytest.mark.parametrize("method", ["salience", "", "oracle", "no/such/folder", Path("nowhere"), 3, None], ids=str)
def test_method(model: Any, method: Any) -> None:
    with pytest.raises(ValueError, match="method must be one of" if method == "" else r"method|scorer") as caught:
        salience.prune(model, method, keep=0.5)
    one_sentence(caught)


def test_saliency_without_a_scorer_names_the_way_out(model: Any) -> None:
    with pytest.raises(ValueError, match=r"`salience fit`.*'cls-attention'") as caught:
        salience.prune(model, "saliency", keep=0.5)
    one_sentence(caught)


def test_scorer_of_the_wrong_width(model: Any, tmp_path: Path) -> None:
    for method in (salience.Scorer(32), salience.Scorer(32).save_pretrained(tmp_path / "scorer")):
        with pytest.raises(ValueError, match="reads features 32 wide, but this model's are 24 wide") as caught:
            salience.prune(model, method, keep=0.5)
        one_sentence(caught)


@pytest.mark.parametrize("what", [3, torch.nn.Linear(2, 2), "a name"], ids=["number", "module", "name"])
def test_model(what: Any) -> None:
    with pytest.raises(ValueError, match=r"model must be of a known family \(.*llava, .*\)") as caught:
        salience.prune(what, "uniform", keep=0.5)
    one_sentence(caught)


def test_base_model_without_head(model: Any) -> None:
    with pytest.raises(ValueError, match="LlavaForConditionalGeneration, not a LlavaModel") as caught:
        salience.prune(model.model, "uniform", keep=0.5)
    one_sentence(caught)


def test_tower_without_cls_says_what_stands_in(make_model: Any) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    text = make_model().config.text_config
    vision = SiglipVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )  # fmt: skip
    siglip = LlavaForConditionalGeneration(config).eval()
    for method in ("auto", "cls-attention", "visionzip"):
        with salience.prune(siglip, method, keep=0.5) as pruned:
            assert pruned.substitute is not None and "[CLS]" in pruned.substitute
            assert pruned.method.name == ("cls-attention" if method == "auto" else method)
    ids = torch.tensor([[5] + [3] * 16 + [6]])
    pixels = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        wanted = siglip(input_ids=ids, pixel_values=pixels).logits
        with salience.prune(siglip, "random", keep=1):
            assert torch.equal(siglip(input_ids=ids, pixel_values=pixels).logits, wanted)
        with salience.prune(siglip, "random", keep=0.25):
            assert siglip(input_ids=ids, pixel_values=pixels).logits.shape[1] == 6


@pytest.mark.parametrize("door", ["forward", "generate"])
class TestCalls:
    @pytest.fixture
    def call(self, model: Any, door: str) -> Any:
        def call(match: str, **inputs: Any) -> None:
            with salience.prune(model, "cls-attention", keep=0.5):
                with pytest.raises(ValueError, match=match) as caught:
                    getattr(model, door)(**inputs)
                one_sentence(caught)

        return call

    def test_image_tokens_without_pictures(self, call: Any) -> None:
        call("no picture to prune", input_ids=torch.tensor([[5, 3, 3, 7]]))

    def test_picture_without_image_tokens(self, call: Any, make_batch: Any) -> None:
        call("16 image tokens for each of its 1 pictures", input_ids=torch.tensor([[5, 6]]),
             pixel_values=make_batch([1])["pixel_values"])  # fmt: skip

    def test_more_pictures_than_image_tokens(self, call: Any, make_batch: Any) -> None:
        call("16 image tokens", **{**make_batch([1]), "pixel_values": torch.randn(2, 3, 56, 56)})

    def test_embeddings(self, call: Any, model: Any, make_batch: Any) -> None:
        batch = make_batch([1])
        embeddings = model.get_input_embeddings()(batch.pop("input_ids")).detach()
        call("inputs_embeds cannot be pruned", inputs_embeds=embeddings, **batch)

    def test_encoded_pictures(self, call: Any, model: Any, make_batch: Any) -> None:
        batch = make_batch([1])
        with torch.no_grad():
            encoded = model.get_image_features(batch.pop("pixel_values"), return_dict=True)
        call("mm_encoder_outputs cannot be pruned", mm_encoder_outputs={"image": encoded}, **batch)

    def test_mask_of_another_shape(self, call: Any, make_batch: Any) -> None:
        batch = make_batch([1])
        call("attention_mask must have", **{**batch, "attention_mask": batch["attention_mask"][:, 1:]})

    def test_pixels_of_a_wrong_shape(self, call: Any, make_batch: Any) -> None:
        call(r"must be \(images, 3, H, W\)", **{**make_batch([1]), "pixel_values": torch.randn(3, 56, 56)})

    def test_flash_attention_with_one_row_of_gaps(self, model: Any, call: Any, make_batch: Any) -> None:
        """No kernel runs: the sentence comes before the language model does."""
        config = model.model.language_model.config
        before = config._attn_implementation
        config._attn_implementation_internal = "flash_attention_2"
        try:
            call("FlashAttention misreads one row's original positions", **make_batch([1]))
        finally:
            config._attn_implementation_internal = before


def test_logits_to_keep_as_columns(model: Any, make_batch: Any) -> None:
    with (
        salience.prune(model, "cls-attention", keep=0.5),
        pytest.raises(ValueError, match="logits_to_keep must be a number") as caught,
    ):
        model(**make_batch([1]), logits_to_keep=torch.tensor([3]))
    one_sentence(caught)


@pytest.mark.parametrize("method", ["uniform", "fastv"])
def test_max_length_names_the_callers_lengths(model: Any, make_batch: Any, method: str) -> None:
    """Not those of the prompt that is left."""
    from transformers import GenerationConfig

    batch = make_batch([1])
    width = batch["input_ids"].shape[1]
    with salience.prune(model, "uniform" if method == "uniform" else FastV(layer=1), keep=0.5):
        for options in (
            {"max_length": 3},
            {"max_length": width},
            {"generation_config": GenerationConfig(max_length=9)},
        ):
            short = options.get("max_length", 9)
            with pytest.raises(
                ValueError, match=f"more than the {width} tokens of the unpruned prompt, not {short}:"
            ) as caught:
                model.generate(**batch, **options)
            one_sentence(caught)
        got = model.generate(**batch, max_length=width + 2, min_new_tokens=2, do_sample=False)
        assert got.shape[1] == width + 2


@pytest.mark.parametrize("option", ["assistant_model", "prompt_lookup_num_tokens"])
def test_guessed_tokens_inside_the_language_model(model: Any, make_model: Any, make_batch: Any, option: str) -> None:
    """The option that was set is named, in the first turn and behind it; the others' answers are those without it."""
    batch, options = make_batch([1]), {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}
    guess = {option: 2 if option == "prompt_lookup_num_tokens" else make_model()}
    with salience.prune(model, FastV(layer=1), keep=0.5):
        with pytest.raises(ValueError, match=f"^{option} guesses tokens") as caught:
            model.generate(**batch, **options, **guess)
        one_sentence(caught)
        first = model.generate(**batch, **options, return_dict_in_generate=True)
        more = torch.cat([first.sequences, torch.tensor([[7, 9]])], dim=1)
        with pytest.raises(ValueError, match=f"^{option} guesses tokens"):
            model.generate(more, **passed_cache(model, cache_of_output(first)), **options, **guess)
    with salience.prune(model, FastV(layer=1), keep=1):
        wanted = model.generate(**batch, **options)
    with salience.prune(model, "uniform", keep=1):
        assert torch.equal(model.generate(**batch, **options), wanted)
    if option == "prompt_lookup_num_tokens":  # transformers warns of its own arguments with an assistant
        with salience.prune(model, "uniform", keep=0.5):
            wanted = model.generate(**batch, **options)
            assert torch.equal(model.generate(**batch, **options, **guess), wanted)


@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl", "llava_siglip", "llava_onevision"])
def test_strategies_that_no_call_could_have(name: str, tiny_family: Any) -> None:
    """Told by `prune`, not by every call after it."""
    model = tiny_family(name).model()
    other = {"full": "default", "default": "full"}[model.config.vision_feature_select_strategy]
    model.config.vision_feature_select_strategy = other
    with pytest.raises(ValueError, match="vision_feature_select_strategy must be") as caught:
        salience.prune(model, "uniform", keep=0.5)
    one_sentence(caught)
    assert "forward" not in vars(model)


def test_a_scorers_config_nested_without_end(model: Any, tmp_path: Path) -> None:
    folder = salience.Scorer(24).save_pretrained(tmp_path / "scorer")
    for deep in (400, 200_000):
        (folder / "config.json").write_text('{"d_features": 24, "training": {"a": ' + "[" * deep + "]" * deep + "}}")
        with pytest.raises(ValueError, match="more than 100 deep") as caught:
            salience.prune(model, folder, keep=0.5)
        one_sentence(caught)
