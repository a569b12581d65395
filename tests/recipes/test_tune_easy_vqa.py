"""The easy-VQA recipe on a made-up folder of the package's layout: words, resuming, and that transformers reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tune_easy_vqa
from PIL import Image

from salience.lab.evaluate.generate_evaluator import GenerateEvaluator

SIZES = tune_easy_vqa.Sizes(pictures=2, held=1, steps=2, batch=2, log_every=1, check_every=1)
ROWS = [["what color is the shape?", "teal"], ["is there not a circle in the image?", "no"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training pictures with two questions each; a test split that must not be opened."""
    root = tmp_path_factory.mktemp("easy")
    (root / "train" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "train" / "images" / f"{number}.png")
    rows = [[*row, number] for number in range(3) for row in ROWS]
    (root / "train" / "questions.json").write_text(json.dumps(rows))
    (root / "test").mkdir()
    (root / "test" / "questions.json").write_text("not to be read")
    return root


class KilledError(Exception):
    """Stands in for a kill."""


def test_a_killed_training_comes_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune_easy_vqa.make(data, tmp_path / "whole", SIZES)
    monkeypatch.setattr(tune_easy_vqa, "validate", lambda *given: 0.5)
    real = tune_easy_vqa.cosine

    def dies(step: int, *rest: Any) -> float:
        if step == 1:
            raise KilledError
        return real(step, *rest)

    monkeypatch.setattr(tune_easy_vqa, "cosine", dies)
    with pytest.raises(KilledError):
        tune_easy_vqa.make(data, tmp_path / "parts", SIZES)
    assert not (tmp_path / "parts").exists()
    monkeypatch.setattr(tune_easy_vqa, "cosine", real)
    parts = tune_easy_vqa.make(data, tmp_path / "parts", SIZES)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    logged = [json.loads(line) for line in (parts / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [0, 1]


def test_the_words_are_new_ones_and_the_old_weights_stay(tmp_path: Path) -> None:
    model, processor = tune_easy_vqa.begin(tmp_path / "start")
    asked = " ".join(question for question, _ in ROWS) + " is a yellow triangle black brown gray rectangle present"
    ids = processor.tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.unk_token_id not in ids
    assert max(ids) < model.get_input_embeddings().weight.shape[0] == 64
    table = model.get_input_embeddings().weight
    color, colour = (processor.tokenizer.convert_tokens_to_ids(word) for word in ("color", "colour"))
    assert color != colour
    assert torch.equal(table[color], table[colour])


def test_a_step_asks_what_the_stock_model_is_asked(data: Path, tmp_path: Path) -> None:
    """Behind all tokens the logits of an answer's first word are those that `generate` starts from."""
    model, processor = tune_easy_vqa.begin(tmp_path / "start")
    groups = tune_easy_vqa.training_groups(data, SIZES, seed=0)
    pictures = tune_easy_vqa.encode(model, processor, groups, tmp_path / "features.pt")
    assert len(pictures.prompts) == 3
    with torch.no_grad():
        logits, packed = tune_easy_vqa.asked(model, pictures, [0], 576, np.random.default_rng(0), questions=1)
    number = next(n for n, prompt in enumerate(pictures.prompts[0]) if prompt.answer[0] == packed.targets[0])
    evaluator = GenerateEvaluator(model, processor, [[groups[0][number]]])
    inputs = evaluator.inputs(groups[0][number].image, [groups[0][number].question])
    with torch.no_grad():
        stock = model(**inputs).logits[0, -1]
    # the features were stored in bfloat16, three digits, and logits are of order ten
    torch.testing.assert_close(logits[0], stock, atol=0.3, rtol=0)
    assert int(logits[0].argmax()) == int(stock.argmax())
