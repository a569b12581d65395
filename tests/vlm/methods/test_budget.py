"""Budgets: how many tokens stay."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salience.vlm.methods.budget import Budget

sizes = st.integers(1, 3000)
shares = st.floats(0, 1, exclude_min=True)


@given(n=sizes, keep=shares)
def test_keep_rounds_half_up_and_leaves_one(n: int, keep: float) -> None:
    k = Budget(keep=keep).count(n)
    assert k == max(1, math.floor(keep * n + 0.5))
    assert 1 <= k <= n
    assert k == 1 or abs(k - Fraction(keep) * n) <= Fraction(1, 2) + Fraction(n, 2**50)  # rounding of keep * n


@given(n=sizes)
def test_keep_one_keeps_all(n: int) -> None:
    assert Budget(keep=1).count(n) == n


@given(n=sizes, a=shares, b=shares)
def test_keep_is_monotonic(n: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert Budget(keep=low).count(n) <= Budget(keep=high).count(n)


@given(n=sizes, tokens=st.integers(1, 3000))
def test_tokens_are_exact_or_refused(n: int, tokens: int) -> None:
    if tokens <= n:
        assert Budget(tokens=tokens).count(n) == tokens
    else:
        with pytest.raises(ValueError, match=f"tokens must be at most {n}"):
            Budget(tokens=tokens).count(n)


@given(
    scores=st.lists(st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5), min_size=1, max_size=4), mass=shares
)
def test_mass_is_the_fewest_that_reach_it(scores: list[list[float]], mass: float) -> None:
    table = torch.tensor(scores)
    for row, k in zip(table.softmax(-1), Budget(mass=mass).counts(table, lambda s: s.softmax(-1)), strict=True):
        ranked = row.double().sort(descending=True).values
        assert 1 <= k <= 5
        if mass == 1.0:
            assert k == 5
            continue
        slack = 1e-6  # float32 shares add up to 1 only so well
        assert ranked[:k].sum() >= mass - slack
        assert ranked[: k - 1].sum() < mass + slack


@given(n=sizes)
def test_mass_one_keeps_even_what_rounds_to_nothing(n: int) -> None:
    scores = torch.full((1, n), -200.0)
    scores[0, 0] = 0
    assert Budget(mass=1).counts(scores, lambda s: s.softmax(-1)) == [n]


@pytest.mark.parametrize("given_", [{}, {"keep": 0.5, "tokens": 3}, {"tokens": 3, "mass": 0.5}], ids=str)
def test_exactly_one(given_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one of keep, tokens and mass is needed, not"):
        Budget(**given_)  # type: ignore[arg-type]


@given(value=st.one_of(st.floats(max_value=0), st.floats(min_value=1, exclude_min=True), st.just(math.nan)))
def test_shares_out_of_range(value: float) -> None:
    for name in ("keep", "mass"):
        with pytest.raises(ValueError, match=f"{name} must be a number above 0 and at most 1, not"):
            Budget(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 2.0, 1.5, "3", True, math.nan])
def test_tokens_that_are_no_count(value: object) -> None:
    with pytest.raises(ValueError, match="tokens must be a whole number of at least 1, not"):
        Budget(tokens=value)  # type: ignore[arg-type]


def test_mass_without_scores() -> None:
    with pytest.raises(ValueError, match="needs a method with scores"):
        Budget(mass=0.5).counts(torch.zeros(2, 4), None)


def test_other_libraries_numbers_do() -> None:
    import numpy as np

    assert Budget(tokens=np.int64(3)).tokens == 3  # type: ignore[arg-type]
    assert Budget(keep=np.float32(0.5)).keep == 0.5  # type: ignore[arg-type]


class TestBounds:
    def test_a_small_picture_keeps_all_it_has(self) -> None:
        scores = torch.tensor([[3.0, 2.0, 1.0]])
        assert Budget(mass=0.1, min=9).counts(scores, lambda x: x.softmax(-1)) == [3]
        assert Budget(mass=1.0, max=2).counts(scores, lambda x: x.softmax(-1)) == [2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"keep": 0.5, "min": 3}, "min and max bound a mass budget, and keep is not a mass budget"),
            ({"mass": 0.5, "min": 5, "max": 4}, "min must be at most max, not 5 with max=4"),
            ({"mass": 0.5, "max": 0}, "max must be a whole number of at least 1, not 0"),
        ],
    )
    def test_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Budget(**options)
