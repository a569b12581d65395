"""Answers through `generate`: marks, likelihoods of choices, and what pruning leaves, on tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import salience
from salience.lab.evaluate.evaluator import Answers, AnswerSettings
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.marks import further_marks, mark
from salience.lab.evaluate.prompts import prompt_inputs
from salience.lab.evaluate.teacher_forcing import loglikelihood
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.uniform import Uniform

PICTURE = Image.radial_gradient("L").resize((84, 84)).convert("RGB")


def sample(question: str, **fields: Any) -> Any:
    return SimpleNamespace(**{"image": PICTURE, "question": question, "answer": "yes", "kind": "", **fields})


@pytest.fixture(scope="module")
def evaluator(tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]) -> GenerateEvaluator:
    groups = [
        [sample("which digit is red?", image=PICTURE), sample("is there a 7?", image=PICTURE, choices=("yes", "no"))],
        [sample("how many digits?")],
    ]
    model = tiny_llava(84)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:  # from the initial .02: logits of order one, so that rounding never decides
                parameter.mul_(6)
    return GenerateEvaluator(model, tiny_processor(84), groups, AnswerSettings(max_new_tokens=3))


def test_marks_by_hand() -> None:
    samples = [sample("a"), sample("b", answers=("no",) * 2 + ("yes",) * 8), sample("c", choices=("yes", "no"))]
    texts = ("Yes.", "no", "no")
    right = tuple(mark(one, text) for one, text in zip(samples, texts, strict=True))
    # Two of ten say no: leaving one of them out (twice) 1/3, another (eight times) 2/3.
    assert right == pytest.approx([1, (2 / 3 + 8 * 2 / 3) / 10, 0])
    found = further_marks(samples, Answers(right=right, texts=texts, chosen=(None, None, "yes"), tokens=(1,)))
    assert found["exact_match"] == [1, 1, 0]
    assert found["vqa_accuracy"] == [None, pytest.approx(0.6), None]
    assert found["loglikelihood_accuracy"] == [None, None, 1]


def test_answers_are_what_generate_says(evaluator: GenerateEvaluator) -> None:
    found = evaluator.run(Uniform(), Budget(keep=0.25))
    assert found.tokens == (9, 9)
    assert [each is not None for each in found.chosen] == [False, True, False]
    model, processor = evaluator.model, evaluator.processor
    with salience.prune(model, "uniform", keep=0.25):
        for number, one in enumerate(evaluator.samples):
            inputs = prompt_inputs(processor, [one.image], [one.question])
            ids = model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            assert processor.tokenizer.decode(ids, skip_special_tokens=True).strip() == found.texts[number]
    assert evaluator.run(None, Budget(keep=1.0)).tokens == (36, 36)


def test_a_likelihood_is_the_forwards(evaluator: GenerateEvaluator) -> None:
    """Two tokens behind two prompts of unlike length, against one forward each without padding."""
    model, processor = evaluator.model, evaluator.processor
    one, two = evaluator.groups[0]
    inputs = prompt_inputs(processor, [one.image] * 2, [one.question, two.question + " how many"])
    found, greedy = loglikelihood(model, processor.tokenizer, inputs, "red 7")
    ids = processor.tokenizer("red 7", add_special_tokens=False)["input_ids"]
    for row, question in enumerate([one.question, two.question + " how many"]):
        alone = prompt_inputs(processor, [one.image], [question])
        whole = torch.cat([alone["input_ids"], torch.tensor([ids])], dim=1)
        with torch.no_grad():
            logits = model(input_ids=whole, pixel_values=alone["pixel_values"]).logits[0, -3:-1].log_softmax(-1)
        # float32 sums in another order, padded and with a cache
        assert float(found[row]) == pytest.approx(float(logits[0, ids[0]] + logits[1, ids[1]]), abs=1e-4)
        assert bool(greedy[row]) == (logits.argmax(-1).tolist() == ids)
    with pytest.raises(ValueError, match="at least one token"):
        loglikelihood(model, processor.tokenizer, inputs, "")
