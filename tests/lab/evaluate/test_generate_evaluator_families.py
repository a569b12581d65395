"""Families beyond LLaVA-1.5 asked through their own processors; those that need torchvision can't be built here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from salience.lab.evaluate.evaluator import AnswerSettings
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.uniform import Uniform


def sample(image: Any, question: str, **fields: Any) -> Any:
    return SimpleNamespace(image=image, question=question, answer="yes", kind="", **fields)


@pytest.mark.filterwarnings("ignore")  # transformers' own, about its deprecated names
@pytest.mark.parametrize("family", ["idefics3", "smolvlm", "llava_next", "gemma3", "paligemma"])
def test_a_family_is_asked_in_batches(
    family: str,
    family_processor: Callable[[str], Any],
    tiny_family: Callable[[str], Any],
    noise: Callable[..., Any],
) -> None:
    """Two questions of unlike length together, against each alone with its own padding, all tokens and half."""
    model, made = tiny_family(family).model(), family_processor(family)
    picture = noise(size=(100, 70))
    questions = [sample(picture, "which digit is red ?"), sample(picture, "is red ?", choices=("yes", "no"))]
    settings = AnswerSettings(max_new_tokens=2)
    together = GenerateEvaluator(model, made, [questions], settings)
    apart = GenerateEvaluator(model, made, [[question] for question in questions], settings)
    for method, keep in ((None, 1.0), (Uniform(), 0.5)):
        both, each = together.run(method, Budget(keep=keep)), apart.run(method, Budget(keep=keep))
        assert (both.texts, both.chosen) == (each.texts, each.chosen)
        assert both.chosen[1] in ("yes", "no")
    full, half = together.run(None, Budget(keep=1.0)).tokens, both.tokens
    assert 0 < half[0] < full[0]


@pytest.mark.filterwarnings("ignore")  # as above
def test_one_question_about_a_picture_that_is_cut_into_tiles(
    tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any], noise: Callable[..., Any],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`salience ask` counts the tokens of all views and draws the first on the picture at its own size."""
    from salience.cli.main import run

    tiny_family("llava_next").model().save_pretrained(tmp_path / "model")
    family_processor("llava_next").save_pretrained(tmp_path / "model")
    noise(size=(100, 70)).save(tmp_path / "picture.png")
    where = ["--model", str(tmp_path / "model"), "--picture", str(tmp_path / "kept.png"), "--json"]
    line = ["ask", str(tmp_path / "picture.png"), "which digit is red ?", "--method", "uniform", "--keep", ".5"]
    assert run([*line, *where]) == 0
    said = capsys.readouterr()
    assert "2 views" in said.err
    full, pruned = json.loads(said.out)["records"][0]["rows"]
    assert 0 < len(pruned["kept"]) < pruned["tokens_kept"] < full["tokens_kept"]
    with Image.open(tmp_path / "kept.png") as drawn:
        assert drawn.size == (100, 70)
