"""A kernel's tasks on several threads, off the GIL.

numba's own layers do not serve: OpenMP dies in a forked child and `workqueue` aborts when two threads call at once.
Here compiled code counts the tasks. The caller takes tasks until none is left, and so do torch's own threads (`openmp`)
or, without these, threads of this pool, which get the job from a queue. The caller never waits for a free thread, so
any number of callers may share the pool. The thread of a task is not fixed, but its result is: results do not depend on
the number of threads.
"""

from __future__ import annotations

import ctypes
import os
import threading
from queue import SimpleQueue

import torch

from salience.ops.simd.openmp import on_team

HEAD = 64  # bytes before a job's parameters: how many tasks are taken, how many are done, how many there are, nothing
Entry = ctypes.CFUNCTYPE(None, ctypes.c_int64)  # compiled: does tasks of the job at an address until none is left


class KernelJob:
    """Tasks 0..n_tasks-1 of a compiled kernel, and its parameters. These are addresses: the caller keeps tensors alive.

    A job can run many times, but not twice at once. Tasks must not write to the same memory; their order is undefined.
    """

    def __init__(self, entry: Entry, n_tasks: int, params: bytes) -> None:  # type: ignore[valid-type]
        self.entry, self.n_tasks = entry, n_tasks
        self.memory = ctypes.create_string_buffer(bytes(16) + n_tasks.to_bytes(8, "little") + bytes(HEAD - 24) + params)
        self.address = ctypes.addressof(self.memory)
        self.done = ctypes.c_int64.from_buffer(self.memory, 8)

    def run(self, threads: int | None = None) -> None:
        """Run on torch.get_num_threads() threads (or `threads`); MemoryError without memory for a kernel's scratch."""
        asked = torch.get_num_threads() if threads is None else threads
        useful = min(asked, self.n_tasks)
        if useful <= 1:
            self.work()
        elif not on_team(
            self.entry, self.address, asked
        ):  # all of torch's threads: a smaller team would end the others
            _pool.share(self, useful - 1)
        done = self.done.value
        ctypes.memset(self.address, 0, 16)
        if done != self.n_tasks:
            raise MemoryError(f"a kernel did {done} of its {self.n_tasks} tasks: there was no memory for its scratch.")

    def work(self) -> None:
        """Take tasks until none is left."""
        self.entry(self.address)  # type: ignore[misc]


class _Shared:
    """A job that helpers may join until its caller finds no task left."""

    def __init__(self, job: KernelJob) -> None:
        self.job, self.working, self.closed = job, 0, False
        self.changed = threading.Condition()

    def join(self) -> None:
        """Work of a helper thread."""
        with self.changed:
            if self.closed:
                return
            self.working += 1
        self.job.work()
        with self.changed:
            self.working -= 1
            self.changed.notify()

    def finish(self) -> None:
        """Work of the calling thread. No helper is in the job when it returns."""
        self.job.work()
        with self.changed:
            self.closed = True
            self.changed.wait_for(lambda: self.working == 0)


class _Pool:
    """The helpers of one process, started as they are needed."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[_Shared] = SimpleQueue()
        self.lock = threading.Lock()
        self.helpers = 0

    def share(self, job: KernelJob, helpers: int) -> None:
        """Do a job with up to so many helpers."""
        if self.helpers < helpers:
            with self.lock:
                while self.helpers < helpers:
                    self.helpers += 1
                    name = f"salience-{self.helpers}"
                    threading.Thread(target=self._serve, args=(self.queue,), name=name, daemon=True).start()
        shared = _Shared(job)
        for _ in range(helpers):
            self.queue.put(shared)
        shared.finish()

    @staticmethod
    def _serve(queue: SimpleQueue[_Shared]) -> None:
        while True:
            queue.get().join()


_pool = _Pool()


def _forget() -> None:
    """Start a new pool in a forked child: it has none of its parent's threads, and a lock may be held for ever."""
    global _pool  # noqa: PLW0603
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
