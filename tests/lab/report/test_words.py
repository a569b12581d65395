"""Numbers and lists as a reader sees them."""

import math

import pytest

from salience.lab.report.kit import words


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.share(1.0), "100%"),
        (words.share(0.025), "2.5%"),
        (words.share(0.1), "10%"),
        (words.whole_share(0.985), "98%"),
        (words.whole_share(0.004), "under 1%"),
        (words.points(0.01), "1 point"),
        (words.points(-0.1234), "12.3 points"),
        (words.points_apart(-0.05, "+"), "\u22125.0"),
        (words.points_apart(0.0, "+"), "0.0"),
        (words.points_apart(-0.0004), "0.0"),
        (words.points_apart(0.05, "+"), "+5.0"),
        (words.times(3.62), "3.6\u00d7"),
        (words.times(14.2), "14\u00d7"),
        (words.milliseconds(41.6), "42 ms"),
        (words.milliseconds(4.66), "4.7 ms"),
        (words.milliseconds(0.034), "0.034 ms"),
        (words.byte_size(512), "512 B"),
        (words.byte_size(7_077_888), "6.8 MiB"),
        (words.flop_count(9.71e9), "9.7 GFLOP"),
        (words.flop_count(8.9e12), "8.9 TFLOP"),
        (words.listed([]), ""),
        (words.listed(["a"]), "a"),
        (words.listed(["a", "b", "c"]), "a, b and c"),
        (words.capital("[CLS] attention"), "[CLS] attention"),
    ],
)
def test_numbers_and_lists(told: str, expected: str) -> None:
    assert told == expected


@pytest.mark.parametrize(
    ("keeps", "expected"),
    [
        ([0.75, 0.5, 0.25], "75% to 25%"),
        ([0.25, 0.5], "50% and 25%"),
        ([0.75, 0.25], "75% and 25%"),
        ([0.75, 0.5, 0.25, 0.05], "75% to 25% and 5%"),
        ([0.1], "10%"),
    ],
)
def test_neighbouring_ratios_are_drawn_together(keeps: list[float], expected: str) -> None:
    assert words.ranged(keeps, [1, 0.75, 0.5, 0.25, 0.1, 0.05]) == expected


@pytest.mark.parametrize("value", [None, True, "0.5", math.nan, math.inf])
def test_what_is_no_number_is_none(value: object) -> None:
    assert words.finite(value) is None
