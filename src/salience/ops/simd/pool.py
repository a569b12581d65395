"""A small thread pool for kernels that run off the GIL.

numba's own layers do not serve: OpenMP dies in a forked child and `workqueue` aborts when two threads call at once.
Here a caller numbers its tasks, and takes part in them until none is left. Its helpers are torch's own threads
(`team`), or where those cannot be had threads of ours: for each it would like it puts a ticket into a queue, and never
depends on one being free, so any number of callers may share the pool. Which thread does which task is chance, what a
task computes is not: results do not depend on the number of threads.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch

from salience.ops.simd.team import on_team


class _Job:
    """Tasks 0..n-1 of one call; each thread that takes part calls `work` once."""

    def __init__(self, run: Callable[..., None], n_tasks: int, args: tuple[Any, ...]) -> None:
        self.run, self.n_tasks, self.args = run, n_tasks, args
        self.next_task = itertools.count().__next__  # atomic under the GIL
        self.finished = 0
        self.error: BaseException | None = None
        self.lock, self.done = threading.Lock(), threading.Event()

    def work(self) -> None:
        """Take tasks until none is left."""
        did = 0
        while (task := self.next_task()) < self.n_tasks:
            try:
                if self.error is None:
                    self.run(*self.args, task)
            except BaseException as error:  # handed to the caller
                self.error = error
            did += 1
        if did:
            with self.lock:
                self.finished += did
                if self.finished == self.n_tasks:
                    self.done.set()


class _Pool:
    """The helpers of one process, started as they are needed."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[_Job] = SimpleQueue()
        self.lock = threading.Lock()
        self.helpers = 0

    def ask(self, job: _Job, helpers: int) -> None:
        """Invite `helpers` threads to a job."""
        if self.helpers < helpers:
            with self.lock:
                while self.helpers < helpers:
                    self.helpers += 1
                    name = f"salience-{self.helpers}"
                    threading.Thread(target=self._serve, args=(self.queue,), name=name, daemon=True).start()
        for _ in range(helpers):
            self.queue.put(job)

    @staticmethod
    def _serve(queue: SimpleQueue[_Job]) -> None:
        while True:
            queue.get().work()


_pool = _Pool()


def _forget() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that nobody will ever release."""
    global _pool  # noqa: PLW0603
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def parallel_for(run: Callable[..., None], n_tasks: int, *args: Any, threads: int | None = None) -> None:
    """run(*args, task) for every task in 0..n_tasks-1, on torch.get_num_threads() threads (or `threads`).

    `run` should release the GIL (`Kernel.compiled` gives such functions). Returns when all are done; what a task raises
    is raised here. Tasks must not write to the same memory; their order is not defined.
    """
    asked = torch.get_num_threads() if threads is None else threads
    threads = min(asked, n_tasks)
    if threads <= 1:
        for task in range(n_tasks):
            run(*args, task)
        return
    job = _Job(run, n_tasks, args)
    if not on_team(job.work, asked):  # all of torch's threads: a smaller team would end the others
        _pool.ask(job, threads - 1)
        job.work()
        job.done.wait()
    if job.error is not None:
        raise job.error
