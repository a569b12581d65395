"""GenerateEvaluator with each picture encoded once and its questions run together says what `generate` says."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from salience.lab.evaluate import generate_evaluator, packed_evaluator
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.packed_evaluator import PackedEvaluator, evaluator_for
from salience.vlm.families import adapter_for
from salience.vlm.methods.base import Method
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
    options = {"instruction": "one", "max_new_tokens": 4}
    processor = tiny_processor(84)
    packed = evaluator_for(adapter_for(model), processor, groups, **options)
    assert isinstance(packed, PackedEvaluator)
    return GenerateEvaluator(model, processor, groups, **options), packed


@pytest.mark.parametrize("method", [None, Random(seed=1), VisionZip(), PyramidDrop()])
def test_it_says_what_generate_says(
    ways: tuple[GenerateEvaluator, PackedEvaluator], method: Method | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = ways
    monkeypatch.setattr(generate_evaluator, "PART", 2)  # of three pictures
    ticks: list[None] = []
    wanted, found = plain.replies(method, 0.25), packed.replies(method, 0.25, lambda: ticks.append(None))
    assert found == wanted
    assert len(ticks) == 3
    for way in ways:
        first, last = [way.replies(method, 0.25, part=part) for part in way.parts]
        assert (first.texts + last.texts, first.chosen + last.chosen) == (wanted.texts, wanted.chosen)
        assert (len(first.tokens), first.tokens + last.tokens) == (2, wanted.tokens)
    assert len({*found.texts}) > 1 < len(found.texts[0].split())


def test_pictures_beyond_the_room_are_encoded_again(
    ways: tuple[GenerateEvaluator, PackedEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = ways
    monkeypatch.setattr(packed_evaluator, "KEPT_BYTES", 0)
    monkeypatch.setattr(packed, "_known", {})
    assert packed.replies(Random(), 0.5) == plain.replies(Random(), 0.5)
    assert packed._known == {}


def test_choices_of_several_tokens_and_generation_that_is_not_plain_go_through_generate(
    ways: tuple[GenerateEvaluator, PackedEvaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = ways
    monkeypatch.setattr(packed.groups[1][0], "choices", ("red 7", "no"))
    assert packed.replies(None, 1.0).chosen[3] in ("red 7", "no")
    monkeypatch.setattr(packed.model.generation_config, "repetition_penalty", 1.2)
    assert type(evaluator_for(packed.adapter, plain.processor, plain.groups)) is GenerateEvaluator
