"""Settings of a model's own processor that change how many tokens a picture has: followed for every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import salience
from salience.lab.evaluate.prompts import prompt_text
from salience.lab.profile.processor_settings import prepared_in
from salience.lab.profile.roofline import Roofline

ROOF = Roofline(flops_per_s=1e11, bytes_per_s=1e10, launch_s=1e-5, name="made up")


@pytest.mark.parametrize("size", [(84, 84), (1024, 768), (90, 300)])
@pytest.mark.parametrize("family", ["idefics3", "smolvlm", "llava_next", "gemma3"])
def test_tokens_are_those_of_the_models_own_prompt(
    family: str, size: tuple[int, int], tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any]
) -> None:
    model, processor = tiny_family(family).model(), family_processor(family)
    prompt = processor(images=Image.new("RGB", size), text=prompt_text(processor, "?"), return_tensors="pt")[
        "input_ids"
    ]
    found = salience.profile(model, keep=[1.0], picture=size, processor=processor, roof=ROOF, text_tokens=4)
    assert found.config["n_visual_tokens"] == int((prompt == model.config.image_token_id).sum())
    assert found.rows[0].first_token_ms > 0  # the same pictures go through the real model


def test_several_pictures_have_several_times_the_tokens(
    tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any]
) -> None:
    model, processor = tiny_family("llava_next").model(), family_processor("llava_next")
    one, four = (
        salience.profile(model, keep=[0.5], processor=processor, roof=ROOF, images=n, batch=n).rows[0] for n in (1, 2)
    )
    assert four.tokens_kept == one.tokens_kept
    assert four.flops_vision == 4 * one.flops_vision


# tokens follow from the arrays' shapes; each pair is (a setting, what it makes of a picture of 1024 x 768)
@pytest.mark.parametrize(
    ("family", "kind", "settings", "shape"),
    [
        ("qwen2_vl", "Qwen2VLImageProcessor", {"min_pixels": 3136, "max_pixels": 12_845_056}, (3996, 1176)),
        ("qwen2_vl", "Qwen2VLImageProcessor", {"min_pixels": 3136, "max_pixels": 100_352}, (468, 1176)),
        ("qwen2_5_vl", "Qwen2VLImageProcessor", {"size": {"shortest_edge": 3136, "longest_edge": 50_176}}, (216, 1176)),
        ("idefics3", "Idefics3ImageProcessor", {"do_image_splitting": True}, (1, 13, 3, 364, 364)),
        ("idefics3", "Idefics3ImageProcessor", {"do_image_splitting": False}, (1, 1, 3, 364, 364)),
        ("smolvlm", "SmolVLMImageProcessor", {"size": {"longest_edge": 728}}, (1, 5, 3, 364, 364)),
        ("llava", "CLIPImageProcessor", {"crop_size": {"height": 112, "width": 112}}, (1, 3, 112, 112)),
        ("llava_next", "LlavaNextImageProcessor", {"image_grid_pinpoints": [[448, 448]]}, (1, 5, 3, 224, 224)),
        ("gemma3", "Gemma3ImageProcessor", {"size": {"height": 112, "width": 112}}, (1, 3, 112, 112)),
    ],
)
def test_settings_are_read_where_there_is_no_tokenizer(
    family: str, kind: str, settings: dict[str, Any], shape: tuple[int, ...], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **settings}))
    found = prepared_in(tmp_path, family, (1024, 768), local=True)
    assert tuple(found.values["pixel_values"].shape) == shape
    assert found.name.startswith(kind) and not found.note


def test_what_a_familys_processor_always_says_is_said(tmp_path: Path) -> None:
    """InternVL's asks for tiles in every call, whatever its image processor's own settings are."""
    settings = {"image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 56, "width": 56}, "max_patches": 6}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl"}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert len(prepared_in(tmp_path, "internvl", (120, 60), local=True).values["pixel_values"]) > 1
