"""Several processes that fill the cache of one study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from salience.lab.data_parallel import ProcessGroup
from salience.lab.result_cache import ResultCache

NAMES = [f"result {number}" for number in range(7)]


Threads = Callable[[int, Callable[[ProcessGroup], Any]], list[Any]]


def filled(out: Path, done: list[tuple[int, str]]) -> Callable[[ProcessGroup], tuple[dict[str, str], int]]:
    """Fills all NAMES; returns what came out and how often this process ticked. done: who computed what"""

    def work(group: ProcessGroup) -> tuple[dict[str, str], int]:
        cache = ResultCache(out, {"seed": 0}, group=group)
        ticks: list[None] = []

        def job(name: str) -> Callable[[], str]:
            return lambda: (done.append((group.index, name)), f"value of {name}")[1]

        mine = cache.claim(NAMES)
        return cache.fill({name: job(name) for name in NAMES}, mine, lambda: ticks.append(None)), len(ticks)

    return work


def test_each_result_is_computed_once_and_all_read_all(by_threads: Threads, tmp_path: Path) -> None:
    done: list[tuple[int, str]] = []
    found = by_threads(3, filled(tmp_path, done))
    assert [values for values, _ in found] == [{name: f"value of {name}" for name in NAMES}] * 3
    assert sorted(name for _, name in done) == NAMES
    assert [ticks for _, ticks in found] == [3, 2, 2]
    for index in range(3):  # dealt out in turn
        assert [name for by, name in done if by == index] == NAMES[index::3]


def test_another_number_of_processes_goes_on(by_threads: Threads, tmp_path: Path) -> None:
    before = ResultCache(tmp_path, {"seed": 0})
    for name in NAMES[::2]:
        before.get(name, lambda name=name: f"value of {name}")
    done: list[tuple[int, str]] = []
    found = by_threads(2, filled(tmp_path, done))
    assert sorted(done) == [(0, "result 1"), (0, "result 5"), (1, "result 3")]
    assert [values for values, _ in found] == [{name: f"value of {name}" for name in NAMES}] * 2
    alone, ticks = filled(tmp_path, done)(ProcessGroup("cpu"))
    assert (len(done), ticks, alone) == (3, 0, found[0][0])


def test_another_studys_results_are_cleared_away_once(by_threads: Threads, tmp_path: Path) -> None:
    ResultCache(tmp_path, {"seed": 1}).get("result 0", lambda: "of another seed")
    done: list[tuple[int, str]] = []
    by_threads(2, filled(tmp_path, done))
    assert sorted(name for _, name in done) == NAMES


def test_what_is_not_dealt_out_is_the_firsts(by_threads: Threads, tmp_path: Path) -> None:
    done: list[int] = []

    def work(group: ProcessGroup) -> Any:
        cache = ResultCache(tmp_path, {}, group=group)
        assert cache.group is group
        return cache.get("costs", lambda: (done.append(group.index), [1.5, None])[1])

    assert by_threads(3, work) == [[1.5, None]] * 3 and done == [0]


def test_without_a_folder_each_computes_everything(by_threads: Threads) -> None:
    def work(group: ProcessGroup) -> Any:
        cache = ResultCache(None, {}, group=group)
        return cache.claim(NAMES), cache.fill({"a": lambda: group.index}, ["a"])

    assert by_threads(2, work) == [(NAMES, {"a": 0}), (NAMES, {"a": 1})]
