"""The table of verdicts: from differences alone, the same from both sides, never against the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from salience.core.record import TradeoffRecord
from salience.core.result_tables import AccuracyDifference
from salience.lab.report.tradeoff.rankings import beside_random
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdicts import Verdicts

Make = Callable[..., TradeoffData]


def line(
    method: str, keep: float, value: float, low: float, high: float, against: str = "random"
) -> AccuracyDifference:
    return AccuracyDifference(method=method, keep=keep, against=against, difference=value, low=low, high=high)


def verdicts(*lines: Any, accuracies: dict[tuple[str, float], float | None] | None = None) -> Verdicts:
    return Verdicts(lines, accuracies or {}, 0.9)


def test_a_verdict_needs_an_interval_on_one_side_of_zero() -> None:
    found = verdicts(line("a", 0.1, 0.2, 0.1, 0.3), line("b", 0.1, 0.2, -0.1, 0.5), line("c", 0.1, -0.2, -0.3, -0.1))
    assert [found.verdict(name, 0.1, "random") for name in "abcd"] == ["better", "level", "worse", None]


def test_a_pair_is_the_same_seen_from_either_side() -> None:
    found = verdicts(line("a", 0.1, 0.2, 0.1, 0.3, "b"), line("b", 0.1, 0.2, 0.1, 0.3, "a"))  # the second can't be, too
    assert (found.verdict("a", 0.1, "b"), found.verdict("b", 0.1, "a")) == ("better", "worse")
    turned = found.of("b", 0.1, "a")
    assert turned is not None and (turned.difference, turned.low, turned.high) == (-0.2, -0.3, -0.1)


@pytest.mark.parametrize(
    ("broken", "told"),
    [(None, "line is None"), ("a line", "line is 'a line'"), ({}, "line lacks method, keep, against"),
     ({"low": 0.3, "high": 0.1}, "low must not be above high"), ({"low": None}, "line.low is None")],
)  # fmt: skip
def test_a_line_that_is_none_is_refused_with_a_reason(broken: Any, told: str) -> None:
    found = {**line("a", 0.1, 0.2, 0.1, 0.3).to_json(), **broken} if isinstance(broken, dict) and broken else broken
    with pytest.raises(ValueError, match=told):
        AccuracyDifference.from_json(found, "line")


def test_a_line_that_contradicts_its_rows_gives_no_verdict() -> None:
    found = verdicts(line("a", 0.1, -0.2, -0.3, -0.1), accuracies={("a", 0.1): 0.6, ("random", 0.1): 0.4})
    assert found.verdict("a", 0.1, "random") is None and found.refused == 1


def test_those_whose_interval_holds_zero_or_lies_below_are_named(view_of: Make) -> None:
    data = view_of(
        {"saliency": (0.9, 0.7), "random": (0.9, 0.5), "uniform": (0.9, 0.504), "divprune": (0.9, 0.3),
         "saliency-untrained": (0.9, 0.5), "oracle": (0.9, 0.5)}, keeps=(1.0, 0.1), apart=0.02,
    )  # fmt: skip
    found = beside_random(data)
    assert found is not None and found.tone == "bad"
    assert "Not measurably different from random tokens: a uniform grid at 10% [+0.4 (−1.6 to 2.4)]." in found.text
    assert "Worse than random tokens: DivPrune at 10% [−20.0 (−22.0 to −18.0)]." in found.text
    assert "Better at every ratio: the learned saliency." in found.text
    assert "untrained" not in found.text and "oracle" not in found.text  # they are told of elsewhere


def test_where_all_are_better_the_closest_is_named(view_of: Make) -> None:
    found = beside_random(view_of({"saliency": (0.9, 0.7), "random": (0.9, 0.5), "uniform": (0.9, 0.6)}, (1.0, 0.1)))
    assert found is not None and found.tone == "good"
    assert "closest is a uniform grid at 10%, by +10.0 (8.5 to 11.5) points" in found.text


def test_a_record_without_differences_says_nothing_of_who_is_better(view_of: Make) -> None:
    from salience.lab.report.tradeoff.findings import findings

    assert beside_random(TradeoffData(TradeoffRecord())) is None
    data = view_of({"saliency": (0.9, 0.89, 0.8), "random": (0.9, 0.4, 0.2), "uniform": (0.9, 0.6, 0.3),
                    "oracle": (0.9, 0.9, 0.9), "saliency-shuffled": (0.9, 0.8, 0.7)}, apart=None)  # fmt: skip
    told = " ".join(f"{finding.lead} {finding.text}" for finding in findings(data))
    assert not any(word in told for word in ("beats", "worse", "measurably different", "better", "Better"))
