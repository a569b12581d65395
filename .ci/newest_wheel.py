"""An installed salience by its README and against the masked sequence: run from anywhere but the repository.

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


def run_readme(readme: Path) -> None:
    """README's Python, block by block as one program; a block that is an excerpt of a program is left out."""
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    whole = [block for block in blocks if "import salience" in block]
    if not whole:
        raise SystemExit("README has no Python that imports salience.")
    for block in whole:
        exec(compile(block, str(readme), "exec"), {"__name__": "readme"})


@torch.no_grad()
def check_generate() -> None:
    """Two prompts of unequal length: each way of generating equals the whole prompt with the dropped tokens masked."""
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
    """Everything, with the releases and the place that it ran on."""
    root = Path(sys.argv[1]).resolve()
    if root in Path(salience.__file__).resolve().parents and "site-packages" not in salience.__file__:
        raise SystemExit(f"salience was imported from the source, {salience.__file__}: install its wheel.")
    run_readme(root / "README.md")
    check_generate()
    print(f"README and generate are right on transformers {transformers.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
