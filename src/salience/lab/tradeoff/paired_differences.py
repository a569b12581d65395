"""Paired differences: methods against each other, against all tokens and against answers that need no picture.

Two accuracies whose intervals overlap can still differ clearly, because both were measured on the same questions. So
the difference itself is resampled. Every verdict of the report comes from these lines. Letters: Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TypedDict

import torch
from torch import Tensor

from salience.core.result_tables import ALL_TOKENS, AccuracyDifference, KindDifference, SeedDifference
from salience.lab.evaluate.bootstrap import intervals

_Place = tuple[str, float]


@dataclass(frozen=True, kw_only=True)
class PairedMarks:
    """Marks of one method, ratio and seed. marks: (Q,) in 0..1, for all questions of the trade-off in their order"""

    method: str
    keep: float
    seed: int
    marks: tuple[float, ...]


class _Interval(TypedDict):
    difference: float
    low: float
    high: float


def differences(rows: Sequence[PairedMarks], picture: Tensor) -> list[AccuracyDifference]:
    """Return a difference for each method at each ratio below 1 against random, against all tokens, and between two.

    Args:    rows: of two methods the earlier one is compared with the later one
             picture: (Q,) the picture each question belongs to
    """
    each = _by_place(rows)
    if not each:
        return []
    mean = _means(each)
    interval = partial(_interval, bounds=intervals(picture))
    found = []
    for (method, keep), own in mean.items():
        if keep == 1:
            continue
        for against, place in (("random", ("random", keep)), (ALL_TOKENS, (method, 1.0))):
            if place not in mean or method == against:
                continue
            seeds = each[method, keep] if against == "random" and len(each[method, keep]) > 1 else []
            by_seed = tuple(SeedDifference(seed=seed, **interval(one - mean[place])) for seed, one in seeds)
            found.append(
                AccuracyDifference(
                    method=method, keep=keep, against=against, **interval(own - mean[place]), by_seed=by_seed
                )
            )
    for one, other in combinations(mean, 2):
        if one[1] == other[1] < 1 and "random" not in (one[0], other[0]):
            apart = interval(mean[one] - mean[other])
            found.append(AccuracyDifference(method=one[0], keep=one[1], against=other[0], **apart))
    return found


def blind_differences(
    rows: Sequence[PairedMarks], picture: Tensor, blind: Mapping[str, Sequence[float]]
) -> list[AccuracyDifference]:
    """Return the accuracy of all tokens minus that of answers without the picture.

    Args:    rows, picture: as in `differences`
             blind: QUESTION_ONLY, MAJORITY -> (Q,) marks of answers without the picture; others are passed over
    """
    whole = next((seeds[0][1] for (_, keep), seeds in _by_place(rows).items() if keep == 1), None)
    found = []
    for name, right in blind.items():
        if whole is not None and len(right) == len(picture):
            apart = whole - torch.tensor([float(mark) for mark in right], dtype=torch.float64)
            known = _interval(apart, intervals(picture))
            found.append(AccuracyDifference(method=ALL_TOKENS, keep=1.0, against=name, **known))
    return found


def kind_differences(rows: Sequence[PairedMarks], picture: Tensor, kinds: Sequence[str]) -> list[KindDifference]:
    """Return each method's accuracy minus that of all tokens on one kind of question.

    Args:    rows, picture: as in `differences`   kinds: (Q,) of each question, as the accuracy columns spell them
    """
    mean = _means(_by_place(rows))
    found = []
    for kind in dict.fromkeys(kind for kind in kinds if kind):
        mine = torch.tensor([other == kind for other in kinds])
        bounds = intervals(picture[mine])
        for (method, keep), own in mean.items():
            if keep < 1 and (method, 1.0) in mean:
                apart = (own - mean[method, 1.0])[mine]
                found.append(KindDifference(method=method, keep=keep, kind=kind, **_interval(apart, bounds)))
    return found


def _interval(apart: Tensor, bounds: Callable[[Tensor], tuple[float, float]]) -> _Interval:
    low, high = bounds(apart)
    return {"difference": float(apart.mean()), "low": low, "high": high}


def _by_place(rows: Sequence[PairedMarks]) -> dict[_Place, list[tuple[int, Tensor]]]:
    """(method, keep) -> (seed, (Q,) marks) of each of its rows."""
    each: dict[_Place, list[tuple[int, Tensor]]] = {}
    for row in rows:
        marks = torch.tensor(row.marks, dtype=torch.float64)
        each.setdefault((row.method, row.keep), []).append((row.seed, marks))
    return each


def _means(each: Mapping[_Place, Sequence[tuple[int, Tensor]]]) -> dict[_Place, Tensor]:
    """(method, keep) -> (Q,) marks, mean over seeds."""
    return {place: torch.stack([own for _, own in seeds]).mean(0) for place, seeds in each.items()}
