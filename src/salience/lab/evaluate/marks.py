"""Marks of answers: the task's own measure, and further measures of the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from salience.lab.data.vqa.answer_metrics import LEAST, exact_match, vqa_accuracy
from salience.lab.evaluate.evaluator import Answers


def accepted_answers(sample: Any) -> tuple[str, ...]:
    """Return all answers that count as right."""
    return tuple(getattr(sample, "answers", ())) or (sample.answer,)


def mark(sample: Any, said: str) -> float:
    """Return the task's own measure: VQA accuracy where enough people answered, else exact match."""
    answers = accepted_answers(sample)
    return vqa_accuracy(said, answers) if len(answers) >= LEAST else exact_match(said, answers)


def further_marks(samples: Sequence[Any], answers: Answers) -> dict[str, list[float | None]]:
    """Return measure -> one mark for each question, None where it is undefined; empty for answers without texts."""
    if answers.texts is None or answers.chosen is None:
        return {}
    each = [
        (accepted_answers(sample), text, choice)
        for sample, text, choice in zip(samples, answers.texts, answers.chosen, strict=True)
    ]
    return {
        "exact_match": [exact_match(text, right) for right, text, _ in each],
        "vqa_accuracy": [vqa_accuracy(text, right) if len(right) >= LEAST else None for right, text, _ in each],
        "loglikelihood_accuracy": [None if choice is None else exact_match(choice, right) for right, _, choice in each],
    }
