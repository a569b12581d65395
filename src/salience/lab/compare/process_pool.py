"""Training runs in parallel processes. Small models run faster in many single-thread processes than in one process."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from salience.core.progress import ProgressBars, Tick
from salience.lab.compare.training_run import Job, RunResult, run

Done = Callable[[Job, RunResult], object]
_BROKEN = (
    "processes: one that ran a fit was ended from outside, as happens where memory runs out; what was finished is kept "
    "for the same command, and fewer at the same time need less."
)
_told: Any = None  # a worker's queue to the parent's progress bars


def run_all(jobs: Sequence[Job], processes: int, threads: int, bars: ProgressBars, done: Done) -> None:
    """Run the jobs and call `done(job, result)` in this process as each one ends.

    Each job writes its own checkpoints, so a killed pool continues where its jobs were.

    Raises:  ValueError where a worker was ended from outside
    """
    if processes == 1 or len(jobs) < 2:
        before = torch.get_num_threads()
        torch.set_num_threads(threads or before)
        try:
            for job in jobs:
                done(job, run(job, bars))
        finally:
            torch.set_num_threads(before)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the kernels' thread pool without its threads
    told = context.Queue()
    ticks: dict[str, Tick] = {}
    with ProcessPoolExecutor(min(processes, len(jobs)), context, _start, (told, threads)) as pool, ExitStack() as drawn:

        def draw() -> None:
            """Draw the messages that have arrived: key of the bar, name of the method, its argument."""
            while True:
                try:
                    key, method, value = told.get_nowait()
                except queue.Empty:
                    return
                if method == "bar":
                    ticks[key] = drawn.enter_context(bars.bar(*value))
                else:
                    getattr(ticks[key], method)(value)

        left: dict[Future[RunResult], Job] = {pool.submit(run, job, _ToldBars()): job for job in jobs}
        try:
            while left:
                finished, _ = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
                draw()
                for future in finished:
                    done(left.pop(future), future.result())
        except BaseException as error:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise ValueError(_BROKEN) from error
            raise
        draw()


class _ToldBars(ProgressBars):
    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Tick]:
        key = f"{os.getpid()} {name}"
        _told.put((key, "bar", (name, total)))
        yield _ToldTick(key)


class _ToldTick(Tick):
    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def __call__(self, by: int = 1) -> None:
        _told.put((self._key, "__call__", by))

    def say(self, text: str) -> None:
        _told.put((self._key, "say", text))


def _start(told: Any, threads: int) -> None:
    """Start a worker. It ends together with its parent, killed or not, so that no checkpoint has two writers."""
    global _told  # noqa: PLW0603 (one worker, one queue to its parent)
    _told = told
    told.cancel_join_thread()
    torch.set_num_threads(threads or 1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
