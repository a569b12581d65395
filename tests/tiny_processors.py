"""Processors for the models of tests/tiny_families.py; `tests/conftest.py` provides them.

transformers' own where they can be built without torchvision; else a stand-in that makes the same arguments.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

PAD, IMAGE, OPEN, CLOSE, END = 0, 3, 4, 5, 7  # as tests/tiny_families.py has them
WORDS = "which digit is red ? yes no USER : ASSISTANT".split()


def tokenizer(special: dict[int, str], **named: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [special.get(number, f"w{number}") for number in range(64)]
    words[20:30] = WORDS
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[2]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=words[PAD], eos_token=words[1], unk_token=words[2],
        additional_special_tokens=list(special.values()), **({"extra_special_tokens": named} if named else {}),
    )  # fmt: skip


def chat(image: str) -> str:
    return (
        "{% for m in messages %}USER : {% for c in m['content'] %}{% if c['type'] == 'image' %} "
        + image
        + " {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT :"
        "{% endif %}"
    )


def _idefics3() -> Any:
    from transformers.models.idefics3 import Idefics3ImageProcessorPil, Idefics3Processor

    words = {IMAGE: "<image>", OPEN: "<fake_token_around_image>", CLOSE: "<global-img>", END: "<end_of_utterance>"}
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False, size={"longest_edge": 84}, max_image_size={"longest_edge": 84}
    )
    return Idefics3Processor(
        image_processor=images, tokenizer=tokenizer(words), image_seq_len=9, chat_template=chat("<image>")
    )


def _llava_next() -> Any:
    from transformers.models.llava_next import LlavaNextImageProcessorPil, LlavaNextProcessor

    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42},
        image_grid_pinpoints=[[42, 84], [84, 42], [84, 84]],
    )  # fmt: skip
    return LlavaNextProcessor(
        image_processor=images, tokenizer=tokenizer({IMAGE: "<image>"}), patch_size=14,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=chat("<image>"),
    )  # fmt: skip


def _gemma3() -> Any:
    from transformers.models.gemma3 import Gemma3ImageProcessorPil, Gemma3Processor

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = {IMAGE: named["image_token"], OPEN: named["boi_token"], CLOSE: named["eoi_token"]}
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 84, "width": 84}), tokenizer=tokenizer(words, **named),
        chat_template=chat("<start_of_image>"), image_seq_length=9,
    )  # fmt: skip


def _paligemma() -> Any:
    from transformers import PaliGemmaProcessor
    from transformers.models.siglip import SiglipImageProcessorPil

    images = SiglipImageProcessorPil(size={"height": 42, "width": 42})
    images.image_seq_length = 9
    words = tokenizer({IMAGE: "<image>"})
    words.add_special_tokens({"bos_token": "w8"})
    return PaliGemmaProcessor(image_processor=images, tokenizer=words, chat_template=chat("<image>"))


class StandIn:
    """Output of a family's processor, with random pixels that depend on the picture alone."""

    chat_template = None
    image_token = "<image>"

    def __init__(self, family: Any) -> None:
        self.family, self.tokenizer = family, tokenizer({IMAGE: "<image>"})

    def __call__(self, *, images: Sequence[Any], text: Sequence[str], **_: Any) -> Any:
        from transformers import BatchFeature

        rows, seen = [], []
        for (image,), prompt in zip(images, text, strict=True):
            drawn = zlib.crc32(image.tobytes())
            size = self.family.sizes[drawn % len(self.family.sizes)]
            pixels, segment = self.family.picture(size, torch.Generator().manual_seed(drawn))
            spaced = re.sub(r"([?:])", r" \1", prompt)
            ids = self.tokenizer(spaced)["input_ids"]
            at = ids.index(IMAGE)
            rows.append([*ids[:at], *segment, *ids[at + 1 :]])
            seen.append([(size, pixels)])
        width = max(map(len, rows))
        ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        arguments = {"input_ids": ids, "attention_mask": mask, **self.family.types(ids, mask)}
        return BatchFeature({**arguments, **self.family.collect(seen)})


#: Families whose own processor can be built here; InternVL's, LLaVA-OneVision's and Qwen's need torchvision.
OWN: dict[str, Callable[[], Any]] = {
    "gemma3": _gemma3, "idefics3": _idefics3, "llava_next": _llava_next, "paligemma": _paligemma, "smolvlm": _idefics3,
}  # fmt: skip
