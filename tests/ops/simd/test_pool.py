"""The thread pool: every task once, errors handed on, many callers at once, forked children."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from salience.ops.simd import parallel_for

from .kernels import apply


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_every_task_runs_once(n: int, threads: int) -> None:
    seen: list[int] = []
    parallel_for(seen.append, n, threads=threads)
    assert sorted(seen) == list(range(n))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = torch.randn(50_001, generator=torch.Generator().manual_seed(0))
    one = apply("softplus", x, threads=1)
    assert all(torch.equal(apply("softplus", x, threads=threads), one) for threads in (2, 3, 8))


def test_helpers_take_part() -> None:
    both = threading.Barrier(2, timeout=20)
    parallel_for(lambda task: both.wait(), 2, threads=2)  # would break the barrier if one thread did both


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_task_reaches_the_caller(threads: int) -> None:
    def fail(task: int) -> None:
        if task == 3:
            raise KeyError("three")

    with pytest.raises(KeyError, match="three"):
        parallel_for(fail, 10, threads=threads)
    test_every_task_runs_once(10, threads)  # and the pool is as good as before


def test_eight_threads_call_at_once() -> None:
    inputs = [torch.randn(20_000 + i, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    want = [apply("exp2", x, threads=1) for x in inputs]
    start = threading.Barrier(8, timeout=20)

    def many(i: int) -> bool:
        start.wait()
        return all(torch.equal(apply("exp2", inputs[i], threads=4), want[i]) for _ in range(20))

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(many, range(8)))


def test_a_task_may_call_the_pool() -> None:
    seen: list[int] = []
    parallel_for(lambda task: parallel_for(seen.append, 10, threads=3), 6, threads=3)
    assert sorted(seen) == sorted(list(range(10)) * 6)


def _child(x: torch.Tensor, want: torch.Tensor) -> None:
    raise SystemExit(0 if torch.equal(apply("sigmoid", x, threads=3), want) else 1)


def test_forked_children_have_helpers_of_their_own() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    want = apply("sigmoid", x, threads=3)  # the parent's helpers are running
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of forking beside threads, as we do here
        child = multiprocessing.get_context("fork").Process(target=_child, args=(x, want))
        child.start()
    child.join(60)
    assert child.exitcode == 0
