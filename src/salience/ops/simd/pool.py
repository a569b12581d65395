"""A kernel's tasks on several threads, off the GIL.

numba's own layers do not serve: OpenMP dies in a forked child and `workqueue` aborts when two threads call at once.
Here compiled code counts the tasks. The caller takes tasks until none is left, and so do torch's own threads or,
without these, threads of a pool. The caller never waits for a free thread, so any number of callers may share the pool.
The thread of a task is not fixed, but its result is: results do not depend on the number of threads.

After an operation, torch's threads spin for milliseconds (libgomp's default) and take cores from all other threads.
Using these threads avoids that, and they start at once. On an idle machine of two cores (Zen 5) the threads of the pool
took 1.02 times as long for a prefill, 1.2 to 1.7 times for scan, convolution and decoding. Private API: the symbol
`GOMP_parallel` of torch's library.
"""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch

HEAD = 64  # bytes before a job's parameters: how many tasks are taken, how many are done, how many there are, nothing
MOST_HELPERS = 256  # threads of the pool, started as they are needed
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
        elif not on_team(self.entry, self.address, asked):  # a smaller team would end torch's other threads
            _share(self, useful - 1)
        done = self.done.value
        ctypes.memset(self.address, 0, 16)
        if done != self.n_tasks:
            raise MemoryError(f"a kernel did {done} of its {self.n_tasks} tasks: there was no memory for its scratch.")

    def work(self) -> None:
        """Take tasks until none is left."""
        self.entry(self.address)  # type: ignore[misc]


@cache
def _gomp_parallel() -> Any:
    """`GOMP_parallel` of torch's OpenMP library, or None on other systems and with other thread pools."""
    if sys.platform != "linux" or "OpenMP" not in torch.__config__.parallel_info().partition("parallel backend")[2]:
        return None
    try:
        found = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint), None
    return found


def on_team(entry: Any, address: int, threads: int) -> bool:
    """Run entry(address) on this number of torch's threads, the caller included; False if that is not possible.

    `entry` is compiled code that needs no GIL. A forked child gets False: libgomp would wait for its parent's threads.
    """
    if _forked or (parallel := _gomp_parallel()) is None:
        return False
    parallel(entry, address, threads, 0)
    return True


def _share(job: KernelJob, helpers: int) -> None:
    """Do a job with up to so many threads of the pool; none of them is in it afterwards."""
    started = [_pool.submit(job.work) for _ in range(helpers)]
    job.work()
    for helper in started:
        if not helper.cancel():  # a helper that has not begun is not waited for
            helper.result()


_pool: ThreadPoolExecutor
_forked: bool  # then libgomp would wait for its parent's threads


def _start(*, forked: bool) -> None:
    """Start a new pool: a forked child has none of its parent's threads, and a lock may be held for ever."""
    global _pool, _forked
    _pool, _forked = ThreadPoolExecutor(max_workers=MOST_HELPERS, thread_name_prefix="salience"), forked


_start(forked=False)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=partial(_start, forked=True))
