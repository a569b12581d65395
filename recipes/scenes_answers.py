"""Count the training answers from which the baselines of the `scenes` task are learnt (half a minute).

    python recipes/scenes_answers.py

writes src/salience/lab/data/scenes_answers.json.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import numpy as np

from salience.core.files import write_atomic
from salience.lab.data import scenes
from salience.lab.data.scene_pictures import Layout, lay_out

PICTURES, QUESTIONS = 6000, 16
#: Pictures whose counts are stored by themselves: a test counts them again, to see whether they are still the same.
CHECKED = 100

Answers = dict[str, Counter[str]]


def count_answers(pictures: int) -> tuple[Answers, Answers]:
    """Count the answers to training questions by text and by kind. This draws no pictures."""
    by_text: Answers = defaultdict(Counter)
    by_kind: Answers = defaultdict(Counter)
    for number in range(pictures):
        items, _ = lay_out(scenes.picture_rng("train", 0, number), "train", Layout())
        for question in scenes.ask_about(items, np.random.default_rng([0, 0, number, 1]), QUESTIONS, number):
            by_text[question.text][question.answer] += 1
            by_kind[question.kind][question.answer] += 1
    return by_text, by_kind


def main() -> None:
    """Count, and store the result beside the task."""
    by_text, by_kind = count_answers(PICTURES)
    # The order of the answers is that of their first coming: of equally common ones the first is taken.
    counted = {"by_text": by_text, "by_kind": by_kind, "first": count_answers(CHECKED)[0]}
    write_atomic(scenes.ANSWERS, json.dumps({"pictures": PICTURES, "questions": QUESTIONS, **counted}, indent=0))


if __name__ == "__main__":
    main()
