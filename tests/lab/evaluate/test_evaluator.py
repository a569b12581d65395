"""Both evaluators give the same answers and the same marks, on the bundled model and its own pictures."""

from __future__ import annotations

from typing import Any

import pytest

from salience.cli.loading import load_vlm
from salience.lab.evaluate.encoded_pictures import encode_pictures, load_pictures
from salience.lab.evaluate.evaluator import Answers, AnswerSettings, Evaluator
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.packed_evaluator import PackedEvaluator, evaluator_for
from salience.lab.evaluate.ranking import RankedPictures
from salience.vlm.families import adapter_for
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.oracle import Oracle
from salience.vlm.methods.random import Random
from salience.vlm.methods.registry import method_class

METHODS = ("random", "cls-attention", "visionzip", "prumerge", "divprune", "oracle", "fastv")


@pytest.fixture(scope="module")
def engines() -> dict[str, Evaluator]:
    """`generate`, packed questions that are decoded, and packed questions that are marked by teacher forcing."""
    loaded = load_vlm(None, "cpu")
    adapter = adapter_for(loaded.model)
    groups = load_pictures("scenes", split="test", pictures=3, questions=4)
    encoded = RankedPictures(adapter, encode_pictures(adapter, loaded.processor, groups, keys=True))
    settings = AnswerSettings(max_new_tokens=4)
    return {
        "generate": GenerateEvaluator(loaded.model, loaded.processor, groups, settings),
        "decoded": evaluator_for(adapter, loaded.processor, groups, settings),
        "marked": evaluator_for(adapter, loaded.processor, groups, settings, encoded=encoded),
    }


def run(engine: Any, name: str | None, keep: float) -> Answers:
    if name == "oracle":
        method: Any = Oracle(boxes=[group[0].boxes for group in engine.groups], image_size=(336, 336))
    else:
        method = None if name is None else method_class(name)()
    found: Answers = engine.run(method, Budget(keep=keep))
    return found


@pytest.mark.parametrize("keep", [0.25, 0.03])
@pytest.mark.parametrize("name", METHODS)
def test_the_engines_agree(engines: dict[str, Evaluator], name: str, keep: float) -> None:
    wanted, decoded, marked = (run(engine, name, keep) for engine in engines.values())
    assert decoded == wanted
    assert (marked.right, marked.tokens) == (wanted.right, wanted.tokens)
    assert (marked.texts is None) == (name != "fastv")  # which no engine can pack


def test_with_all_tokens_and_other_marks(engines: dict[str, Evaluator]) -> None:
    """All tokens, whose divergence from themselves is exactly nothing; and marks that could have come out otherwise."""
    whole = [run(engine, None, 1.0) for engine in engines.values()]
    assert whole[0] == whole[1] and whole[0].right == whole[2].right
    assert whole[2].answer_kl == (0.0,) * 12
    few = run(engines["marked"], "random", 0.03)
    assert few.right != whole[2].right and few.answer_kl is not None and min(few.answer_kl) > 0


def test_parts_are_the_whole(engines: dict[str, Evaluator], monkeypatch: pytest.MonkeyPatch) -> None:
    from salience.lab.evaluate import generate_evaluator

    monkeypatch.setattr(generate_evaluator, "PART", 2)  # of three pictures
    for name, engine in engines.items():
        method, ticks = Random(seed=1), list[int]()
        parts = engine.parts(method)
        assert len(parts) == (1 if name == "marked" else 2)
        each = [engine.run(method, Budget(keep=0.1), part=part, tick=ticks.append) for part in parts]
        assert Answers.joined(each) == engine.run(method, Budget(keep=0.1)) and sum(ticks) == 3


def test_a_study_gets_the_fastest(engines: dict[str, Evaluator]) -> None:
    assert isinstance(engines["decoded"], PackedEvaluator) and isinstance(engines["marked"], PackedEvaluator)


def test_answers_come_back_from_the_cache_as_they_were(engines: dict[str, Evaluator]) -> None:
    for name in ("generate", "marked"):
        found = run(engines[name], "random", 0.1)
        assert Answers.from_json(found.to_json(), "answers") == found
