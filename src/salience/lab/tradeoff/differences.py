"""Methods beside each other, beside all tokens and beside answers that need no picture, question by question.

Two accuracies whose intervals overlap can still differ clearly, for both were measured on the same questions: what is
resampled here is the difference. Every verdict of the report comes from these lines. Letters: Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from salience.lab.evaluate.bootstrap import intervals

#: The rows' column of marks, one a question ("1" or "0", or numbers), which is not written.
MARKS = "marks"
#: What a method is held against besides other methods.
ALL_TOKENS, QUESTION_ONLY, MAJORITY = "all tokens", "question only", "majority answer"
DEFINITION = (
    "accuracy minus that of another method at the same ratio (random: the mean of its draws) or of all tokens, on the "
    "same questions, a method's seeds averaged first; by_seed: of each seed alone; "
    "blind_differences: all tokens minus answers without the picture; kind_differences: on one kind of question, minus "
    "all tokens; 95 % percentile bootstrap, 2,000 draws of whole "
    "pictures; no correction for their number"
)

Line = dict[str, Any]
_Place = tuple[str, float]


def marks(correct: Tensor) -> str:
    """(Q,) bool as a string of 0 and 1, which is what a stored cell can hold."""
    return "".join("1" if right else "0" for right in correct.tolist())


def differences(rows: Sequence[Mapping[str, Any]], picture: Tensor) -> list[Line]:
    """One line for each method, ratio below 1, and what it is held against; of two methods in the rows' order.

    Args:    rows: with the column MARKS; those without or of other questions are passed over
             picture: (Q,) the picture each question belongs to
    Returns: method, keep, against ("random", another method, ALL_TOKENS), difference, low, high, and for several seeds
             against random `by_seed`: seed, difference, low, high
    """
    each = _by_place(rows, len(picture))
    if not each:
        return []
    mean = {place: torch.stack([own for _, own in seeds]).mean(0) for place, seeds in each.items()}
    bounds = intervals(picture)

    def line(apart: Tensor) -> Line:
        low, high = bounds(apart)
        return {"difference": float(apart.mean()), "low": low, "high": high}

    found = []
    for (method, keep), own in mean.items():
        if keep == 1:
            continue
        for against, place in (("random", ("random", keep)), (ALL_TOKENS, (method, 1.0))):
            if place not in mean or method == against:
                continue
            told = {"method": method, "keep": keep, "against": against, **line(own - mean[place])}
            if against == "random" and len(each[method, keep]) > 1:
                seeds = each[method, keep]
                told["by_seed"] = [{"seed": seed, **line(one - mean[place])} for seed, one in seeds]
            found.append(told)
    for one, other in _pairs(mean):
        found.append({"method": one[0], "keep": one[1], "against": other[0], **line(mean[one] - mean[other])})
    return found


def blind_differences(
    rows: Sequence[Mapping[str, Any]], picture: Tensor, blind: Mapping[str, Sequence[float]]
) -> list[Line]:
    """The accuracy of all tokens minus that of answers without the picture.

    Args:    rows, picture: as in `differences`
             blind: QUESTION_ONLY, MAJORITY -> (Q,) what answering without the picture gets on these questions
    Returns: method (ALL_TOKENS), keep (1), against, difference, low, high
    """
    each = _by_place(rows, len(picture))
    whole = next((seeds[0][1] for (_, keep), seeds in each.items() if keep == 1), None)
    found = []
    for name, right in blind.items():
        if whole is not None and len(right) == len(picture):
            apart = whole - torch.tensor([float(mark) for mark in right], dtype=torch.float64)
            low, high = intervals(picture)(apart)
            line = {"method": ALL_TOKENS, "keep": 1.0, "against": name, "difference": float(apart.mean())}
            found.append({**line, "low": low, "high": high})
    return found


def kind_differences(rows: Sequence[Mapping[str, Any]], picture: Tensor, kinds: Sequence[str]) -> list[Line]:
    """Each method's accuracy minus that of all tokens on one kind of question.

    Args:    rows, picture: as in `differences`   kinds: (Q,) of each question, as the accuracy columns spell them
    Returns: method, keep, kind, difference, low, high
    """
    each = _by_place(rows, len(picture))
    mean = {place: torch.stack([own for _, own in seeds]).mean(0) for place, seeds in each.items()}
    found = []
    for kind in dict.fromkeys(kind for kind in kinds if kind):
        mine = torch.tensor([other == kind for other in kinds])
        bounds = intervals(picture[mine])
        for (method, keep), own in mean.items():
            if keep < 1 and (method, 1.0) in mean:
                apart = (own - mean[method, 1.0])[mine]
                low, high = bounds(apart)
                line = {"method": method, "keep": keep, "kind": kind, "difference": float(apart.mean())}
                found.append({**line, "low": low, "high": high})
    return found


def _by_place(rows: Sequence[Mapping[str, Any]], questions: int) -> dict[_Place, list[tuple[Any, Tensor]]]:
    """(method, keep) -> (seed, (Q,) marks) of each of its rows."""
    each: dict[_Place, list[tuple[Any, Tensor]]] = {}
    for row in rows:
        given = row.get(MARKS) or ""
        if len(given) == questions:
            numbers = torch.tensor([float(mark) for mark in given], dtype=torch.float64)
            each.setdefault((row["method"], row["keep"]), []).append((row.get("seed"), numbers))
    return each


def _pairs(places: Mapping[_Place, Tensor]) -> list[tuple[_Place, _Place]]:
    """Two methods at one ratio below 1, neither of them random."""
    return [
        (one, other)
        for one, other in combinations(places, 2)
        if one[1] == other[1] < 1 and "random" not in (one[0], other[0])
    ]
