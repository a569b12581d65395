"""A document's facts about the machine that it was measured on, and when that machine counts as busy."""

from __future__ import annotations

import os
from typing import Any

import pytest

from salience.core.environment import busy_because
from salience.core.record import document
from salience.lab.profile import machine_load as machines
from salience.lab.profile.machine_load import Machine


def test_load_averages_and_the_spread_of_a_fixed_job_are_in_the_environment() -> None:
    watch = Machine()
    watch.sample()
    environment = document([], machine=watch.observed())["environment"]
    assert len(watch.milliseconds) == 3 * machines._REPEATS  # at the start, once between, at the end
    assert environment["floor_ms"] > 0 and environment["floor_spread"] >= 1
    assert {"load_average_start", "load_average_end", "busy_because"} <= set(environment)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ({"load_average_start": 0.4, "load_average_end": 2.3, "floor_spread": 1.1}, None),
        ({"load_average_start": None, "load_average_end": None, "floor_spread": 1.1}, None),
        ({}, None),
        (
            {"load_average_start": 1.6, "load_average_end": 2.0, "floor_spread": 1.1},
            "1.6 at the start of the run, on 2",
        ),
        ({"load_average_start": 0.1, "load_average_end": 3.4, "floor_spread": 1.1}, "3.4 at the end of the run, on 2"),
        ({"load_average_start": 0.1, "load_average_end": 2.0, "floor_spread": 4.2}, "4.2 times as long"),
    ],
)
def test_a_busy_machine_is_one_with_other_work(seen: dict[str, Any], told: str | None) -> None:
    found = busy_because(seen, 2)
    assert found is None if told is None else told in str(found)


def test_a_job_that_is_disturbed_makes_a_machine_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "load_average", lambda: 0.0)
    monkeypatch.setattr(machines, "floor_times", lambda: [1.0] * 8 + [1.1] * 12)
    assert Machine().observed()["busy_because"] is None
    monkeypatch.setattr(machines, "floor_times", lambda: [1.0] * 8 + [2.5] * 12)
    assert "2.5 times as long" in Machine().observed()["busy_because"]


def test_a_system_without_load_averages_says_nothing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    assert machines.load_average() is None
