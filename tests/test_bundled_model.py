"""The bundled model is a stock folder: it answers in a process that has never heard of salience."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import salience
from salience.vlm.families import adapter_for, same_tower

ALONE = """
import json, sys
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

folder, asked = sys.argv[1], json.loads(sys.argv[2])
model = LlavaForConditionalGeneration.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
answers = []
for picture, question in asked:
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True)
    inputs = processor(images=Image.open(picture), text=text, return_tensors="pt")
    new = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    answers.append(processor.decode(new, skip_special_tokens=True).strip())
assert "salience" not in sys.modules
print(json.dumps(answers))
"""


def test_it_answers_without_salience(tmp_path: Path) -> None:
    samples = salience.data.load("scenes", split="val", n=20, seed=11)
    asked = []
    for sample in samples:
        file = tmp_path / f"{sample.picture}.png"
        sample.image.save(file)
        asked.append([str(file), sample.question])
    command = [sys.executable, "-c", ALONE, str(salience.bundled_model()), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path)
    answers = json.loads(done.stdout.splitlines()[-1])
    right = sum(answer == sample.answer for answer, sample in zip(answers, samples, strict=True))
    # .92 of validation questions are answered right; fewer than 14 of 20 has a chance of one in a thousand then
    assert right >= 14


def test_it_is_small_and_holds_no_pickles() -> None:
    files = [file for file in salience.bundled_model().rglob("*") if file.is_file()]
    weights = [file for file in files if file.suffix == ".safetensors"]
    assert sum(file.stat().st_size for file in weights) <= 20e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja", ".md"}
    assert (salience.bundled_model() / "README.md").is_file()


def test_its_scorers_were_made_for_it() -> None:
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(salience.bundled_model())
    home = salience.bundled_model() / "salience"
    for folder in (home, home / "seed-1", home / "seed-2"):
        made_for = salience.Scorer.from_pretrained(folder).config.model
        assert same_tower(made_for, adapter_for(model).fingerprint())
