"""Differences of accuracies on the same questions, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from salience.studies.differences import MARKS, differences, marks

PICTURE = torch.tensor([0, 0, 1, 1])


def rows() -> list[dict[str, object]]:
    of = {
        ("random", 0.5): ["1000", "0100"], ("good", 0.5): ["1110"], ("good", 1.0): ["1111"], ("random", 1.0): ["1111"],
        ("elsewhere", 0.5): [""],
    }  # fmt: skip
    return [{"method": m, "keep": k, MARKS: each} for (m, k), many in of.items() for each in many]


def test_against_the_mean_of_the_draws_and_against_all_tokens() -> None:
    found = {(line["method"], line["against"]): line for line in differences(rows(), PICTURE)}
    assert set(found) == {("good", "random"), ("good", "all tokens"), ("random", "all tokens")}
    # mean of the draws: .5 .5 0 0; the difference: .5 .5 1 0; of either picture .5, so no draw of pictures moves it
    own = found["good", "random"]
    assert (own["difference"], own["low"], own["high"]) == (0.5, 0.5, 0.5)
    lost = found["good", "all tokens"]
    assert lost["difference"] == -0.25
    assert (lost["low"], lost["high"]) == (-0.5, 0.0)  # all the loss is in the second picture


def test_a_pairing_tells_what_two_intervals_hide() -> None:
    """Pictures differ a lot, methods little, and always in the same direction."""
    one = "".join("1111111110" if p % 2 else "1100000000" for p in range(20))
    two = "".join("1111111100" if p % 2 else "1000000000" for p in range(20))
    given = [
        {"method": "one", "keep": 0.5, MARKS: one}, {"method": "random", "keep": 0.5, MARKS: two},
    ]  # fmt: skip
    (line,) = differences(given, torch.arange(20).repeat_interleave(10))
    assert line["difference"] == pytest.approx(0.1)
    assert line["low"] > 0


def test_marks_are_one_a_question() -> None:
    assert marks(torch.tensor([True, False, True])) == "101"
