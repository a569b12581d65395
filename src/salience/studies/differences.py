"""Every method beside random tokens and beside all tokens, question by question.

Two accuracies whose intervals overlap can still differ clearly, for both were measured on the same questions: what is
resampled here is the difference. Letters: Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.studies.bootstrap import interval

#: The rows' column of marks, one a question ("1" or "0", or numbers), which is not written.
MARKS = "marks"
DEFINITION = (
    "accuracy minus that of random tokens (mean of the draws) or of all tokens on the same questions, a method's seeds "
    "averaged first; 95 % percentile bootstrap, 2,000 draws of whole pictures; no correction for their number"
)


def marks(correct: Tensor) -> str:
    """(Q,) bool as a string of 0 and 1, which is what a stored cell can hold."""
    return "".join("1" if right else "0" for right in correct.tolist())


def differences(rows: Sequence[Mapping[str, Any]], picture: Tensor) -> list[dict[str, Any]]:
    """One line for each method, ratio below 1, and what it is held against.

    Args:    rows: with the column MARKS, those without or of other questions are passed over
             picture: (Q,) the picture each question belongs to
    Returns: method, keep, against ("random" or "all tokens"), difference, low, high
    """
    right: dict[tuple[str, float], list[Tensor]] = {}
    for row in rows:
        given = row.get(MARKS) or ""
        if len(given) == len(picture):
            numbers = torch.tensor([float(mark) for mark in given], dtype=torch.float64)
            right.setdefault((row["method"], row["keep"]), []).append(numbers)
    mean = {key: torch.stack(each).mean(0) for key, each in right.items()}
    found = []
    for (method, keep), own in mean.items():
        if keep == 1:
            continue
        for against, key in (("random", ("random", keep)), ("all tokens", (method, 1.0))):
            if key not in mean or method == against:
                continue
            apart = own - mean[key]
            low, high = interval(apart, picture)
            line = {"method": method, "keep": keep, "against": against}
            found.append({**line, "difference": float(apart.mean()), "low": low, "high": high})
    return found
