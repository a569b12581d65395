"""Questions packed behind one picture give what each gives alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from salience.lab.evaluate.packing import pack, run
from salience.lab.evaluate.prompts import Prompt, common_prefix, encode_prompt
from salience.vlm.families import adapter_for

QUESTIONS = [("which digit is red ?", "7"), ("how many digits are there ?", "5"), ("is there a red 7 ?", "yes")]


def _prompts(processor: Any, model: Any, texts: list[tuple[str, str]]) -> list[Prompt]:
    return [encode_prompt(processor, q, a, image_token_id=model.config.image_token_id) for q, a in texts]


def _alone(model: Any, prompt: Prompt, features: torch.Tensor, kept: torch.Tensor, positions: str) -> torch.Tensor:
    """Logits (answer tokens, V) of one question on its own, every column at its place, plain causal."""
    p, k, n = len(prompt.prefix), len(kept), features.shape[0]
    embed = model.get_input_embeddings()
    behind = torch.tensor(prompt.suffix + prompt.answer[:-1])
    row = torch.cat([embed(torch.tensor(prompt.prefix)), features[kept], embed(behind)])[None]
    start = p + (n if positions == "original" else k)
    middle = p + (kept if positions == "original" else torch.arange(k))
    places = torch.cat([torch.arange(p), middle, start + torch.arange(len(behind))])[None]
    ones = torch.ones(1, row.shape[1], dtype=torch.int64)
    out = model.model.language_model(inputs_embeds=row, attention_mask=ones, position_ids=places).last_hidden_state
    return model.lm_head(out[0, -len(prompt.answer) :])


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("keep", [36, 9, 1])
def test_packed_equals_alone(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any], positions: str, keep: int
) -> None:
    model, processor = tiny_llava(84), tiny_processor(84)
    adapter = adapter_for(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        visual = adapter.project(adapter.encode(torch.randn(2, 3, 84, 84, generator=generator)).features)
        kept = torch.stack([torch.randperm(36, generator=generator)[:keep].sort().values for _ in range(2)])
        # The second picture has fewer questions, so its row is padded.
        questions = [_prompts(processor, model, QUESTIONS), _prompts(processor, model, QUESTIONS[:1])]
        packed = pack(questions, kept, 36, positions=positions)
        found = run(adapter, packed, torch.stack([v[index] for v, index in zip(visual, kept, strict=True)]))
        wanted = torch.cat(
            [
                _alone(model, prompt, visual[picture], kept[picture], positions)
                for picture, prompts in enumerate(questions)
                for prompt in prompts
            ]
        )
    # The same sums in another order of blocks: float32 rounding, some 1e-7 a layer on logits of order one.
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)


def test_packed_equals_the_models_own_forward(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]
) -> None:
    from PIL import Image

    model, processor = tiny_llava(84), tiny_processor(84)
    adapter = adapter_for(model)
    image = Image.linear_gradient("L").convert("RGB").resize((336, 336))
    prompts = _prompts(processor, model, QUESTIONS)
    with torch.no_grad():
        pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"]
        visual = adapter.project(adapter.encode(pixels).features)
        packed = pack([prompts], torch.arange(36)[None], 36)
        found = run(adapter, packed, visual)
        for number, (question, _) in enumerate(QUESTIONS):
            text = processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
                add_generation_prompt=True,
            )
            wanted = model(**processor(images=image, text=text, return_tensors="pt")).logits[0, -1]
            first = (packed.owners == torch.tensor([0, number, 0])).all(1)
            # As above: another order of the same float32 sums.
            torch.testing.assert_close(found[first][0], wanted, atol=2e-6, rtol=1e-5)


def test_prompt_ids(tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]) -> None:
    processor = tiny_processor(84)
    prompt = _prompts(processor, tiny_llava(84), [("which digit is red ?", "7")])[0]
    words = processor.tokenizer.convert_ids_to_tokens
    assert words(list(prompt.prefix)) == ["USER", ":"]
    assert words(list(prompt.suffix)) == "which digit is red ? ASSISTANT :".split()
    assert words(list(prompt.answer)) == ["7", "</s>"]


def test_refusals(tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]) -> None:
    prompts = _prompts(tiny_processor(84), tiny_llava(84), QUESTIONS)
    other = Prompt(prefix=(9,), suffix=(8,), answer=(7,))
    with pytest.raises(ValueError, match="2 texts came"):
        common_prefix([prompts[0], other])
    with pytest.raises(ValueError, match="'original' or 'compact'"):
        pack([prompts], torch.arange(36)[None], 36, positions="none")
    with pytest.raises(ValueError, match="at least one prompt"):
        pack([[]], torch.arange(36)[None], 36)
    with pytest.raises(ValueError, match="one image token"):
        encode_prompt(tiny_processor(84), "<image> again ?", "7", image_token_id=3)
