"""transformers' own pipeline prunes inside the context, made before it or in it."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

import salience


@pytest.mark.parametrize("made", ["before", "inside"])
def test_image_text_to_text(make_model: Any, tiny_processor: Any, made: str) -> None:
    from transformers import pipeline

    model, processor = make_model(), tiny_processor(56)
    picture = Image.linear_gradient("L").resize((56, 56)).convert("RGB")

    def ask(pipe: Any) -> str:
        out = pipe(
            text="USER : <image> which digit is red ? ASSISTANT :", images=picture, return_full_text=False,
            generate_kwargs={"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "suppress_tokens": [0, 3]},
        )  # fmt: skip
        return str(out[0]["generated_text"])

    def make() -> Any:
        return pipeline("image-text-to-text", model=model, processor=processor, device="cpu")

    pipe = make()
    full = ask(pipe)
    with salience.prune(model, "cls-attention", tokens=2) as pruned:
        short = ask(pipe if made == "before" else make())
    assert [image.kept.numel() for image in pruned.trace.images] == [2]
    assert short != full  # two of sixteen tokens say something else to this model
    with salience.prune(model, "cls-attention", keep=1):
        assert ask(pipe) == full
    assert ask(pipe) == full
