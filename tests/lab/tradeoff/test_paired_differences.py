"""Differences of accuracies on the same questions, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from salience.core.result_tables import ALL_TOKENS
from salience.lab.evaluate.picture_tasks import QUESTION_ONLY
from salience.lab.tradeoff.paired_differences import PairedMarks, blind_differences, differences, kind_differences

PICTURE = torch.tensor([0, 0, 1, 1])


def of(method: str, keep: float, marks: str, seed: int = 0) -> PairedMarks:
    return PairedMarks(method=method, keep=keep, seed=seed, marks=tuple(map(float, marks)))


def rows() -> list[PairedMarks]:
    return [
        of("random", 0.5, "1000"), of("random", 0.5, "0100", 1), of("good", 0.5, "1110"), of("good", 1.0, "1111"),
        of("random", 1.0, "1111"),
    ]  # fmt: skip


def test_against_the_mean_of_the_draws_and_against_all_tokens() -> None:
    found = {(line.method, line.against): line for line in differences(rows(), PICTURE)}
    assert set(found) == {("good", "random"), ("good", "all tokens"), ("random", "all tokens")}
    # mean of the draws: .5 .5 0 0; the difference: .5 .5 1 0; of either picture .5, so no draw of pictures moves it
    own = found["good", "random"]
    assert (own.difference, own.low, own.high) == (0.5, 0.5, 0.5)
    lost = found["good", "all tokens"]
    assert lost.difference == -0.25
    assert (lost.low, lost.high) == (-0.5, 0.0)  # all the loss is in the second picture


def test_a_pairing_tells_what_two_intervals_hide() -> None:
    """Pictures differ a lot, methods little, and always in the same direction."""
    one = "".join("1111111110" if p % 2 else "1100000000" for p in range(20))
    two = "".join("1111111100" if p % 2 else "1000000000" for p in range(20))
    (line,) = differences([of("one", 0.5, one), of("random", 0.5, two)], torch.arange(20).repeat_interleave(10))
    assert line.difference == pytest.approx(0.1)
    assert line.low > 0


def test_two_methods_are_held_against_each_other_once() -> None:
    given = [
        of(*each) for each in [("one", 0.5, "1110"), ("two", 0.5, "1000"), ("one", 0.25, "1100"), ("two", 0.25, "1101")]
    ]
    found = {(line.method, line.keep, line.against): line.difference for line in differences(given, PICTURE)}
    assert found == {("one", 0.5, "two"): 0.5, ("one", 0.25, "two"): -0.25}


def test_all_tokens_are_held_against_answers_without_the_picture() -> None:
    blind = {QUESTION_ONLY: [1, 1, 0, 0], "of other questions": [1.0]}
    (line,) = blind_differences(rows(), PICTURE, blind)
    assert (line.method, line.keep, line.against, line.difference) == (ALL_TOKENS, 1, QUESTION_ONLY, 0.5)
    assert (line.low, line.high) == (0.0, 1.0)  # both pictures drawn: .5; one of them twice: 0 or 1


def test_seeds_are_held_against_random_tokens_alone_too() -> None:
    given = [*rows(), of("lucky", 0.5, "0000", 3), of("lucky", 0.5, "1111", 4)]
    (line,) = [line for line in differences(given, PICTURE) if (line.method, line.against) == ("lucky", "random")]
    assert line.difference == 0.25  # of the mean, .5 everywhere
    assert [(one.seed, one.difference, one.low) for one in line.by_seed] == [
        (3, -0.25, -0.5),
        (4, 0.75, 0.5),
    ]


def test_a_kind_of_question_is_held_against_all_tokens() -> None:
    found = {(line.method, line.kind): line for line in kind_differences(rows(), PICTURE, ["a", "b", "a", "b"])}
    assert set(found) == {("good", "a"), ("good", "b"), ("random", "a"), ("random", "b")}
    assert (found["good", "a"].difference, found["good", "a"].low) == (0.0, 0.0)
    assert (found["good", "b"].difference, found["good", "b"].low, found["good", "b"].high) == (-0.5, -1, 0)


def test_no_rows_give_no_differences() -> None:
    assert differences([], PICTURE) == []
    assert kind_differences([], PICTURE, ["a"] * 4) == blind_differences([], PICTURE, {QUESTION_ONLY: [0.0] * 4}) == []
