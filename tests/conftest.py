"""Tiny random models with the bundled model's processor shape, built from configs: nothing is downloaded."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

# the same examples everywhere and every time; `HYPOTHESIS_PROFILE=default` looks for new ones
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

WORDS = (
    "<pad> </s> <unk> <image> USER ASSISTANT : ? is there a the of which digit colour how many digits are in picture "
    "left right above below one red orange yellow green cyan blue purple pink yes no none "
    "0 1 2 3 4 5 6 7 8 9 10 11 12"
).split()


def build_tokenizer() -> Any:
    """A word-level tokenizer with the `scenes` words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def build_processor(side: int) -> Any:
    """LLaVA's processor for pictures of `side` pixels, patch 14."""
    from transformers import LlavaProcessor
    from transformers.models.clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
        image_token="<image>",
    )


def build_llava(side: int = 84, *, seed: int = 0, layers: int = 2) -> Any:
    """A random LLaVA in float32: (side / 14) ** 2 visual tokens, tower and language model of `layers` layers."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2, image_size=side,
        patch_size=14, projection_dim=24,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(WORDS), max_position_embeddings=1024, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=WORDS.index("<image>"),
        image_seq_length=(side // 14) ** 2, vision_feature_select_strategy="default", vision_feature_layer=-2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config).eval()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test draws the same whichever tests its process ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_llava() -> Callable[..., Any]:
    """`tiny_llava(side=84, seed=0, layers=2)` -> a random LLaVA."""
    return build_llava


@pytest.fixture(scope="session")
def noise() -> Callable[..., Any]:
    """`noise(seed=0, size=(84, 84))` -> a picture of noise, the same one everywhere (Pillow's own has no seed)."""
    import numpy
    from PIL import Image

    def made(seed: int = 0, size: tuple[int, int] = (84, 84)) -> Any:
        pixels = numpy.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
        return Image.fromarray(pixels.astype("uint8"))

    return made


@pytest.fixture(scope="session")
def tiny_processor() -> Callable[[int], Any]:
    """`tiny_processor(side)` -> its processor."""
    return build_processor


@functools.cache
def _beside(name: str) -> Any:
    """The module `tests/<name>.py`."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the module of a class
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_family() -> Callable[[str], Any]:
    """`tiny_family("qwen2_vl")` -> its `Tiny`, of tests/tiny_families.py."""
    return lambda name: _beside("tiny_families").FAMILIES[name]


@pytest.fixture(scope="session")
def family_processor() -> Callable[[str], Any]:
    """`family_processor("qwen2_vl")` -> its processor or a stand-in, of tests/tiny_processors.py."""

    def made(name: str) -> Any:
        processors = _beside("tiny_processors")
        own = processors.OWN.get(name)
        return own() if own else processors.StandIn(_beside("tiny_families").FAMILIES[name])

    return made
