"""What is said of methods and random tokens, from made-up differences."""

from __future__ import annotations

from typing import Any

from salience.report.differences import differences, unproven
from salience.report.load import Record, Row
from salience.report.quality import others_against_random
from salience.report.series import View


def view(*lines: tuple[str, float, float, float, float]) -> View:
    told = [
        {"method": m, "keep": k, "against": "random", "difference": d, "low": low, "high": high}
        for m, k, d, low, high in lines
    ]
    other = {"method": "saliency", "keep": 0.1, "against": "all tokens", "difference": -0.5, "low": -0.6, "high": -0.4}
    names = {"random", *(line[0] for line in lines)}
    rows = tuple(Row(method=name, keep=0.1, seed=0, values={"accuracy": 0.5}) for name in sorted(names))
    extra: dict[str, Any] = {"differences": [*told, other]}
    return View(Record(kind="tradeoff", config={}, rows=(), typed=rows, extra=extra))


def test_those_whose_interval_holds_zero_or_lies_below_are_named() -> None:
    given = view(
        ("saliency", 0.1, 0.2, 0.1, 0.3), ("uniform", 0.1, 0.004, -0.01, 0.02), ("divprune", 0.05, -0.2, -0.3, -0.1),
        ("saliency-untrained", 0.1, 0.0, -0.1, 0.1),
    )  # fmt: skip
    found = unproven(given)
    assert found is not None and found.tone == "bad"
    assert "Not told from random tokens: a uniform grid at 10% [+0.4 (−1.0 to 2.0)]." in found.text
    assert "Worse than random tokens: DivPrune at 5% [−20.0 (−30.0 to −10.0)]." in found.text
    assert "Better at every ratio: the learned saliency." in found.text
    assert "untrained" not in found.text  # controls are told of elsewhere
    assert others_against_random(given) == found


def test_where_all_are_better_the_closest_is_named() -> None:
    found = unproven(view(("saliency", 0.1, 0.2, 0.1, 0.3), ("uniform", 0.1, 0.1, 0.05, 0.2)))
    assert found is not None and found.tone == "good"
    assert "closest is a uniform grid at 10%, by +10.0 (5.0 to 20.0) points" in found.text


def test_a_record_without_differences_says_nothing_here() -> None:
    assert unproven(View(Record(kind="tradeoff", config={}, rows=()))) is None
    assert len(differences(view(), against="all tokens")) == 1
