"""Packed evaluation, with each picture encoded once and its questions run together, gives the answers of `generate`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from salience.lab.evaluate import generate_evaluator, packed_evaluator
from salience.lab.evaluate.evaluator import Answers, AnswerSettings
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.packed_evaluator import PackedEvaluator, evaluator_for
from salience.vlm.families import adapter_for
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.pyramiddrop import PyramidDrop
from salience.vlm.methods.random import Random
from salience.vlm.methods.visionzip import VisionZip

QUESTIONS = ("which digit is red ?", "is there a 7 ?", "how many digits are there in the picture ?")


@pytest.fixture(scope="module")
def ways(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any], noise: Callable[..., Any]
) -> tuple[GenerateEvaluator, PackedEvaluator]:
    """Three pictures with three, one and two questions, asked either way."""
    model = tiny_llava(84, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(9)  # from the initial .02: best and second are .01 apart, so that rounding never decides
    groups = []
    for seed, count in enumerate((3, 1, 2)):
        fields = {"image": noise(seed), "answer": "yes", "kind": "", "choices": ()}
        groups.append([SimpleNamespace(question=question, **fields) for question in QUESTIONS[:count]])
    groups[0][1].choices = groups[2][1].choices = ("yes", "no", "red")
    settings = AnswerSettings(instruction="one", max_new_tokens=4)
    processor = tiny_processor(84)
    packed = evaluator_for(adapter_for(model), processor, groups, settings)
    assert isinstance(packed, PackedEvaluator)
    return GenerateEvaluator(model, processor, groups, settings), packed


@pytest.mark.parametrize("method", [None, Random(seed=1), VisionZip(), PyramidDrop()])
def test_it_answers_as_generate_does(
    ways: tuple[GenerateEvaluator, PackedEvaluator], method: Method | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = ways
    monkeypatch.setattr(generate_evaluator, "PART", 2)  # of three pictures
    ticks: list[int] = []
    budget = Budget(keep=0.25)
    wanted, found = plain.run(method, budget), packed.run(method, budget, tick=ticks.append)
    assert found == wanted
    assert sum(ticks) == 3
    for way in ways:
        first, last = [way.run(method, budget, part=part) for part in way.parts(method)]
        assert Answers.joined([first, last]) == wanted and len(first.tokens) == 2
    assert found.texts is not None and len({*found.texts}) > 1 < len(found.texts[0].split())


def test_pictures_beyond_the_room_are_encoded_again(
    ways: tuple[GenerateEvaluator, PackedEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = ways
    monkeypatch.setattr(packed_evaluator, "KEPT_BYTES", 0)
    monkeypatch.setattr(packed, "_part_pictures", {})
    assert packed.run(Random(), Budget(keep=0.5)) == plain.run(Random(), Budget(keep=0.5))
    assert packed._part_pictures == {}


def test_choices_of_several_tokens_and_generation_that_is_not_plain_go_through_generate(
    ways: tuple[GenerateEvaluator, PackedEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = ways
    monkeypatch.setattr(packed.groups[1][0], "choices", ("red 7", "no"))
    chosen = packed.run(None, Budget(keep=1.0)).chosen
    assert chosen is not None and chosen[3] in ("red 7", "no")
    monkeypatch.setattr(plain.model.generation_config, "repetition_penalty", 1.2)
    assert type(evaluator_for(packed.adapter, plain.processor, plain.groups)) is GenerateEvaluator
