"""Rows drawn together into points."""

from collections.abc import Callable

import pytest
from conftest import row_of

from salience.core.record import TradeoffRecord
from salience.core.result_rows import TradeoffRow
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData, combined


def row(seed: int, **values: float | None) -> TradeoffRow:
    return row_of(method="saliency", keep=0.25, seed=seed, **values)


def test_seeds_are_averaged_and_the_interval_holds_every_one() -> None:
    point = combined(
        [
            row(0, accuracy=0.8, accuracy_low=0.78, accuracy_high=0.82, answer_kl=None),
            row(1, accuracy=0.9, accuracy_low=0.88, accuracy_high=0.92, answer_kl=0.5),
        ]
    )
    assert point.accuracy == pytest.approx(0.85)  # a mean of binary fractions
    assert (point.low, point.high) == (0.8, pytest.approx(0.9))  # wider than the mean of the ends, 0.83 to 0.87
    assert point.get("answer_kl") == 0.5
    assert point.seeds == 2


def test_one_seed_keeps_its_own_interval() -> None:
    point = combined([row(0, accuracy=0.8, accuracy_low=0.78, accuracy_high=0.82)])
    assert (point.low, point.high) == (0.78, 0.82)


def test_a_negative_time_was_not_measured() -> None:
    point = combined([row(0, accuracy=0.8, decode_ms_per_token=-0.2, prefill_ms=-1.0, select_ms=0.0)])
    assert point.get("decode_ms_per_token") is None and point.get("prefill_ms") is None
    assert point.get("select_ms") == 0.0


def test_information_loss_is_against_all_tokens(view_of: Callable[..., TradeoffData]) -> None:
    data = view_of({"saliency": (0.9, 0.9, 0.9)}, columns={"probe_accuracy": {"saliency": (0.95, 0.9, None)}})
    assert data.loss("saliency", 0.25) == pytest.approx(0.05)  # a difference of binary fractions
    assert data.loss("saliency", 0.05) is None


def test_kinds_and_their_lines() -> None:
    values = row_of(method="random", keep=1.0, accuracy=0.9, accuracy_low=0.8, accuracy_is_there=0.7)
    config = {"majority_by_kind": {"is-there": 0.5}, "question_only_by_kind": {"is_there": 0.6}}
    data = TradeoffData(TradeoffRecord(config=config, rows=(values,)))
    assert data.kinds == ["is-there"]
    assert data.kind_line("is-there", "majority_by_kind") == 0.5
    assert data.kind_line("is-there", "question_only_by_kind") == 0.6
    assert data.kind_line("count", "majority_by_kind") is None
