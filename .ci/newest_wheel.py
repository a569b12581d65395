"""Check an installed salience: README's Python, and `generate` against the masked sequence. Run it outside the source.

python .ci/newest_wheel.py REPOSITORY
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoProcessor, LlavaForConditionalGeneration

import salience


def run_readme(root: Path) -> None:
    """Run README's Python on the bundled model in place of the published one, which would be a download."""
    (code,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    for theirs, ours in (
        ("llava-hf/llava-1.5-7b-hf", salience.bundled_model()),
        ("docs/images/scene.png", root / "docs" / "images" / "scene.png"),
    ):
        assert code.count(f'"{theirs}"') == 1, theirs
        code = code.replace(f'"{theirs}"', f'"{ours.as_posix()}"')
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


@torch.no_grad()
def check_generate() -> None:
    """Compare each generation mode, on prompts of unequal length, with the prompt whose dropped tokens are masked."""
    folder = salience.bundled_model()
    model: Any = LlavaForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    samples = salience.data.load("scenes", split="test", n=2, seed=0)[:2]
    questions = [samples[0].question, "is there a red 7 ?"]
    chats = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}] for question in questions
    ]
    prompts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    inputs = processor(
        images=[sample.image for sample in samples], text=prompts, return_tensors="pt", padding=True,
        add_special_tokens=False,
    )  # fmt: skip
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for mode in ({}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {"use_cache": False}):
        options = {"max_new_tokens": 6, "do_sample": False, **mode}
        with salience.prune(model, "cls-attention", keep=1.0):
            same = model.generate(**inputs, **options)
        assert torch.equal(same, model.generate(**inputs, **options)), mode
        with salience.prune(model, "cls-attention", keep=0.25) as pruned:
            got = model.generate(**inputs, **options)
        stays = torch.zeros_like(ids, dtype=torch.bool)
        for row, columns in enumerate(pruned.trace.columns):
            stays[row, columns[columns >= 0]] = True
        positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
        masked = {**inputs, "attention_mask": mask.masked_fill(~stays, 0), "position_ids": positions}
        assert torch.equal(got, model.generate(**masked, **options)), mode


def main() -> None:
    """Run both checks, and print the releases."""
    root = Path(sys.argv[1]).resolve()
    if root in Path(salience.__file__).resolve().parents and "site-packages" not in salience.__file__:
        raise SystemExit(f"salience was imported from the source, {salience.__file__}: install its wheel.")
    run_readme(root)
    check_generate()
    print(f"README and generate are right on transformers {transformers.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
