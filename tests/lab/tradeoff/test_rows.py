"""Rows from measurements, worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from salience.lab.evaluate.evaluator import Answers
from salience.lab.evaluate.picture_tasks import PictureTask
from salience.lab.tradeoff.costs import CostColumns
from salience.lab.tradeoff.measurements import ALL, Measurement
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.lab.tradeoff.rows import paired_marks, tradeoff_rows
from salience.lab.tradeoff.token_metrics import TokenMetrics
from salience.vlm.methods.uniform import Uniform

SAMPLES = [SimpleNamespace(kind=kind, answer="yes") for kind in ("is-there", "How many?", "is-there")]
TASK = PictureTask(groups=[SAMPLES[:2], SAMPLES[2:]], baselines={}, layout="", blind={})
METHODS = [MethodUnderTest(name=name, seed=3, method=Uniform()) for name in ("oracle", "oracle-question")]
FOUND = {
    ALL: Measurement(answers=Answers(right=(1.0, 1.0, 0.0), tokens=(8, 8), answer_kl=(0.0, 0.0, 0.0))),
    ("oracle", 3, 0.5): Measurement(
        answers=Answers(right=(0.5, 1.0, 0.0), tokens=(4, 3), texts=("x", "Yes.", "no"), chosen=("yes", None, None)),
        tokens=TokenMetrics(feature_cosine=0.5),
    ),
    ("oracle-question", 3, 0.5): Measurement(  # of two questions, the other way round
        answers=Answers(right=(1.0, 0.0), tokens=(4, 4), answer_kl=(0.5, 1.0)), questions=(2, 0)
    ),
}


def test_columns_by_hand() -> None:
    rows = tradeoff_rows(TASK, METHODS, (1.0, 0.5), FOUND, {("oracle", 0.5): CostColumns(kv_bytes=7)})
    assert [(row.method, row.keep, row.seed) for row in rows] == [
        ("oracle", 1, 3),
        ("oracle", 0.5, 3),
        ("oracle-question", 1, 3),
        ("oracle-question", 0.5, 3),
    ]
    whole, own, _, ceiling = rows
    assert (whole.accuracy, whole.tokens_kept, whole.answer_kl) == (pytest.approx(2 / 3), 8, 0)
    assert (own.accuracy, own.tokens_kept, own.answer_kl) == (0.5, 3.5, None)
    assert own.accuracy_by_kind == {"is_there": 0.25, "how_many": 1.0}
    assert (own.exact_match, own.vqa_accuracy, own.loglikelihood_accuracy) == (pytest.approx(1 / 3), None, 1)
    assert (own.feature_cosine, own.kv_bytes, own.n_pictures) == (0.5, 7, 2)
    assert (ceiling.accuracy, ceiling.answer_kl, ceiling.kv_bytes) == (0.5, 0.75, 7)
    assert ceiling.accuracy_by_kind == {"is_there": 0.5} and whole.kv_bytes is None


def test_only_rows_of_all_questions_are_paired() -> None:
    marks = paired_marks(METHODS, (1.0, 0.5), FOUND)
    assert [(each.method, each.keep) for each in marks] == [("oracle", 1), ("oracle", 0.5), ("oracle-question", 1)]
    assert marks[1].marks == (0.5, 1.0, 0.0) and marks[1].seed == 3


def test_a_measurement_comes_back_from_the_cache_as_it_was() -> None:
    for found in FOUND.values():
        assert Measurement.from_json(found.to_json(), "m") == found
    assert torch.equal(TASK.picture, torch.tensor([0, 0, 1]))
