"""Processes that share a study, here as threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from salience.lab.data_parallel import ProcessGroup


@pytest.fixture
def by_threads() -> Callable[[int, Callable[[ProcessGroup], Any]], list[Any]]:
    """`by_threads(count, work)` -> what `work(group)` gives in each of so many "processes"."""

    def together(count: int, work: Callable[[ProcessGroup], Any]) -> list[Any]:
        barrier = threading.Barrier(count, timeout=60)

        def one(index: int) -> Any:
            group = ProcessGroup("cpu")
            group.index, group.count, group.wait = index, count, barrier.wait  # type: ignore[method-assign]
            try:
                return work(group)
            except BaseException:
                barrier.abort()  # the others would wait in vain
                raise

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))

    return together
