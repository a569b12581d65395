"""Rows of a trade-off from its measurements, with the marks that differences are paired by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from salience.core.result_rows import TradeoffRow
from salience.lab.evaluate.bootstrap import interval
from salience.lab.evaluate.marks import further_marks
from salience.lab.evaluate.picture_tasks import PictureTask
from salience.lab.tradeoff.costs import CostColumns, Costs
from salience.lab.tradeoff.measurements import ALL, Key, Measurement
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.lab.tradeoff.paired_differences import PairedMarks


def tradeoff_rows(
    task: PictureTask,
    methods: Sequence[MethodUnderTest],
    keeps: Sequence[float],
    found: Mapping[Key, Measurement],
    costs: Costs,
) -> list[TradeoffRow]:
    """Return a row for each method at each ratio; at ratio 1 all have the quality of all tokens."""
    quality = {key: _quality(task, measured) for key, measured in found.items()}
    return [
        replace(
            quality[(method.name, method.seed, keep) if keep < 1 else ALL],
            method=method.name, keep=keep, seed=method.seed, **vars(costs.get((method.cost, keep), CostColumns())),
        )
        for method in methods
        for keep in keeps
    ]  # fmt: skip


def paired_marks(
    methods: Sequence[MethodUnderTest], keeps: Sequence[float], found: Mapping[Key, Measurement]
) -> list[PairedMarks]:
    """Return the marks of each row that was measured on all questions, in the order of the rows."""
    rows = []
    for method in methods:
        for keep in keeps:
            measured = found[(method.name, method.seed, keep) if keep < 1 else ALL]
            if measured.questions is None:
                marks = tuple(round(mark, 4) for mark in measured.answers.right)
                rows.append(PairedMarks(method=method.name, keep=keep, seed=method.seed, marks=marks))
    return rows


def _quality(task: PictureTask, measured: Measurement) -> TradeoffRow:
    """The quality columns; the row's name is filled in later."""
    answers = measured.answers
    questions = list(range(len(task.samples)) if measured.questions is None else measured.questions)
    kinds, picture = [task.kinds[number] for number in questions], task.picture[questions]
    # Right or wrong is counted in float32, marks between them in float64.
    marks = torch.tensor(answers.right, dtype=torch.float32 if answers.texts is None else torch.float64)
    low, high = interval(marks, picture)
    further = {name: mean(values) for name, values in further_marks(task.samples, answers).items()}
    return TradeoffRow(
        method="all tokens",
        keep=1.0,
        tokens_kept=mean(answers.tokens),
        accuracy=float(marks.mean()),
        accuracy_low=low,
        accuracy_high=high,
        answer_kl=None if answers.answer_kl is None else float(torch.tensor(answers.answer_kl).mean()),
        accuracy_by_kind={
            kind: _kind_mean(marks, [other == kind for other in kinds]) for kind in dict.fromkeys(kinds) if kind
        },
        n_pictures=len(set(picture.tolist())),
        exact_match=further.get("exact_match"),
        vqa_accuracy=further.get("vqa_accuracy"),
        loglikelihood_accuracy=further.get("loglikelihood_accuracy"),
        **vars(measured.tokens),
    )


def _kind_mean(marks: torch.Tensor, mine: Sequence[bool]) -> float:
    own = [mark for mark, of_kind in zip(marks.tolist(), mine, strict=True) if of_kind]
    return float(torch.tensor(sum(own) / len(own), dtype=marks.dtype))


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known, None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
