"""Jobs on several threads: every task once, many callers at once, with and without torch's threads, forked children."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from salience.ops.simd import pool
from salience.ops.simd.element import F32
from salience.ops.simd.kernel import kernel
from salience.ops.simd.load_store import count_up, load_byte

from .kernels import apply

PARAMS = np.dtype([("counts", "i8"), ("met", "i8"), ("partners", "i8"), ("bytes", "i8")])


@kernel(PARAMS)
def counting_kernel(tag, params, task):
    """Wants some scratch, waits a while for `partners` tasks to be in, and counts in its own place if they came."""
    p = params[0]
    scratch = np.empty(p.bytes, np.uint8)
    count_up(p.met)
    while count_up(p.met + 8) < 1 << 28 and load_byte(p.met) < p.partners:
        pass
    if load_byte(p.met) >= p.partners:
        count_up(p.counts + 8 * task)
    scratch[0] = 0


def counted(n: int, threads: int | None, partners: int = 0, scratch: int = 8) -> list[int]:
    """How often each task ran."""
    counts = np.zeros(n + 2, np.int64)
    fields = (counts.ctypes.data, counts.ctypes.data + 8 * n, partners, scratch)
    counting_kernel.job((F32,), n, fields).run(threads)
    found: list[int] = counts[:n].tolist()
    return found


@pytest.fixture(params=["torch's threads", "threads of ours"])
def _helpers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "threads of ours":
        monkeypatch.setattr(pool, "on_team", lambda *_: False)


@pytest.mark.usefixtures("_helpers")
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_every_task_runs_once(n: int, threads: int) -> None:
    assert counted(n, threads) == [1] * n


@pytest.mark.usefixtures("_helpers")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = torch.randn(50_001, generator=torch.Generator().manual_seed(0))
    one = apply("softplus", x, threads=1)
    assert all(torch.equal(apply("softplus", x, threads=threads), one) for threads in (2, 3, 8))


@pytest.mark.usefixtures("_helpers")
def test_helpers_take_part() -> None:
    assert counted(2, 2, partners=2) == [1, 1]  # neither task ends before the other has begun


def test_a_job_runs_again() -> None:
    counts = np.zeros(12, np.int64)
    job = counting_kernel.job((F32,), 10, (counts.ctypes.data, counts.ctypes.data + 80, 0, 8))
    for _ in range(3):
        job.run(2)
    assert counts[:10].tolist() == [3] * 10


@pytest.mark.usefixtures("_helpers")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numba tells it at once, too
def test_no_memory_for_scratch_reaches_the_caller(threads: int) -> None:
    with pytest.raises(MemoryError, match="0 of its 10 tasks"):
        counted(10, threads, scratch=1 << 60)
    assert counted(10, threads) == [1] * 10  # and the pool is as good as before


@pytest.mark.usefixtures("_helpers")
def test_eight_threads_call_at_once() -> None:
    inputs = [torch.randn(20_000 + i, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    want = [apply("exp2", x, threads=1) for x in inputs]
    start = threading.Barrier(8, timeout=20)

    def many(i: int) -> bool:
        start.wait()
        return all(torch.equal(apply("exp2", inputs[i], threads=4), want[i]) for _ in range(20))

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(many, range(8)))


def _child(x: torch.Tensor, want: torch.Tensor) -> None:
    raise SystemExit(0 if torch.equal(apply("sigmoid", x, threads=3), want) else 1)


@pytest.mark.usefixtures("_helpers")
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
