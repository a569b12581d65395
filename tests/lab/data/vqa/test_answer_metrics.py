"""Measures and baselines against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from salience.lab.data.vqa import VqaSample, exact_match, vqa_accuracy, vqa_baselines
from salience.lab.data.vqa.answer_metrics import normalised


def test_exact_match() -> None:
    assert exact_match(" Yes. ", ["yes"]) == 1
    assert exact_match("yes it is", ["yes"]) == 0
    assert exact_match("pink", ["red", "pink"]) == 1


@pytest.mark.parametrize(("agree", "wanted"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_of_ten(agree: int, wanted: float) -> None:
    """With a of ten agreeing: a leave-outs of one who agrees leave min(1, (a - 1) / 3), the others min(1, a / 3)."""
    assert vqa_accuracy("The red", ["red"] * agree + ["blue"] * (10 - agree)) == pytest.approx(wanted)


def test_vqa_accuracy_needs_people() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        vqa_accuracy("red", ["red"] * 3)


def test_normalised() -> None:
    assert normalised("An  isn't, Two 1,000 dogs!") == "isnt 2 1000 dogs"
    assert normalised("3.5 p.m.") == "3.5 p m"
    assert normalised("10:30") == "10:30"


def sample(picture: int, question: str, answer: str) -> VqaSample:
    return VqaSample(path=Path("x"), question=question, answers=(answer,), kind="", picture=picture, row="row")


def score(asked: VqaSample, said: str) -> float:
    return exact_match(said, asked.answers)


def test_baselines_learn_from_training_questions() -> None:
    train = [sample(0, "is it red?", "no"), sample(0, "is it blue?", "no"), sample(1, "how many?", "2")]
    asked = [sample(5, "is it red?", "no"), sample(5, "Is it green?", "no"), sample(6, "how many?", "2")]
    found = vqa_baselines(asked, train, score)
    assert found.majority == (1, 1, 0)
    assert found.question_only == (1, 1, 1)  # the second by its first two words
    assert found.learnt_from == "3 training questions"


def test_without_training_questions_no_picture_tells_its_own_answers() -> None:
    asked = [sample(0, "which?", "a"), sample(0, "which?", "a"), sample(1, "which?", "b")]
    found = vqa_baselines(asked, [], score)
    assert found.question_only == (0, 0, 0)  # of picture 0 only "b" is left, of picture 1 only "a"
    assert found.majority == (0, 0, 0)
    alone = vqa_baselines(asked[:2], [], score)
    assert alone.question_only == (0, 0)


@pytest.mark.parametrize("written", ["cafe\u0301 noir", "caf\u00e9\u00a0noir", "caf\u00e9 noir\u200b"])
def test_what_nobody_sees_makes_no_other_answer(written: str) -> None:
    assert exact_match("Caf\u00e9 noir", [written]) == 1
    assert vqa_accuracy("Caf\u00e9 noir", [written] * 10) == 1
