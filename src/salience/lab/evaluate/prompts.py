"""Prompts as token ids: the text before the picture, the text behind it, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One question's ids. prefix: before the picture   suffix: behind it, to the end of the prompt
    answer: the answer's ids, the end token last."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    answer: tuple[int, ...]


def prompt_text(processor: Any, question: str) -> str:
    """Return the chat template around one picture and the question, up to the beginning of the answer."""
    if getattr(processor, "chat_template", None) is None:
        return f"USER: {processor.image_token} {question} ASSISTANT:"
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


def encode_prompt(processor: Any, question: str, answer: str, *, image_token_id: int) -> Prompt:
    """Return the ids of one question about one picture and of its answer.

    Raises:  ValueError when the prompt does not hold exactly one image token, or nothing follows it
    """
    tokenizer = processor.tokenizer
    text = prompt_text(processor, question)
    # A template that writes the start token itself must not get a second one.
    bos = tokenizer.bos_token
    ids = tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]
    if ids.count(image_token_id) != 1 or ids[-1] == image_token_id:
        raise ValueError(
            f"the prompt for {question!r} must hold one image token with text behind it, "
            f"not {ids.count(image_token_id)} image tokens in {len(ids)} tokens."
        )
    at = ids.index(image_token_id)
    answered = tokenizer(answer, add_special_tokens=False)["input_ids"]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Prompt(prefix=tuple(ids[:at]), suffix=tuple(ids[at + 1 :]), answer=(*answered, *end))


def common_prefix(prompts: Sequence[Prompt]) -> tuple[int, ...]:
    """Return the prefix that all prompts share.

    Raises:  ValueError when there is none: questions can only share a picture's cache behind equal text
    """
    prefixes = {prompt.prefix for prompt in prompts}
    if len(prefixes) != 1:
        raise ValueError(f"questions that share a picture need equal text before it, but {len(prefixes)} texts came.")
    return prefixes.pop()


def prompt_inputs(processor: Any, images: Sequence[Any], questions: Sequence[str]) -> Any:
    """Return the model's arguments for rows of one picture and one question each, padded on the left, on the CPU."""
    texts = [prompt_text(processor, question) for question in questions]
    # A template that writes the start token itself must not get a second one.
    bos = processor.tokenizer.bos_token
    special = not (bos and texts[0].startswith(bos))
    # A list a row: some processors count a flat list as one row's pictures.
    inputs = processor(
        images=[[image] for image in images], text=texts, padding=True, padding_side="left", add_special_tokens=special,
        return_tensors="pt",
    )  # fmt: skip
    inputs.pop("labels", None)  # PaliGemma's processor always gives them
    return inputs
