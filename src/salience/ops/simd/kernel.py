"""`@kernel`: a numba function compiled once for each combination of element types, off the GIL, cached on disk."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba import carray, njit
from numba.core import types
from numba.core.ccallback import CFunc

from salience.ops.simd.cache import DiskCache, folder
from salience.ops.simd.element import Element
from salience.ops.simd.load_store import count_up, pointer_to
from salience.ops.simd.pool import HEAD, KernelJob

# glibc gives freed memory back to the system at once, and then every call of a kernel waits for new pages, until the
# process has freed one large block (32 MB at most). Most programs do. This one is never written to: it costs no memory.
torch.empty(30 << 20, dtype=torch.uint8)

PATIENCE_S = 2.0  # a first call that takes longer says that it compiles
_told = threading.Event()

# For helpers of kernels: they are never called from Python or C, and wrappers take time to compile.
inline = njit(nogil=True, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Kernel:
    """A function (tag, ..., p, task) of up to four element tags, a parameter record and the number of the task to do.

    `kernel.job(elements, n_tasks, fields).run()` does all tasks for these element types; `fields` are those of the
    record, numbers and byte addresses. Compiled code holds no lock and not the GIL.
    """

    def __init__(self, function: Callable[..., Any], record: np.dtype[Any]) -> None:
        self.function, self.record = function, record
        assert record.names is not None
        kinds = [record[name].str for name in record.names]
        self._pack = struct.Struct("=" + "".join({"<i8": "q", "<f8": "d"}[kind] for kind in kinds)).pack
        self._compiled: dict[tuple[Element, ...], CFunc] = {}
        self._lock = threading.Lock()

    def job(self, elements: tuple[Element, ...], n_tasks: int, fields: Sequence[float]) -> KernelJob:
        """Tasks to run, the kernel from memory, from disk or from the compiler."""
        found = self._compiled.get(elements)
        entry = (self._compile(elements) if found is None else found).ctypes
        return KernelJob(entry, n_tasks, self._pack(*fields))

    def _compile(self, elements: tuple[Element, ...]) -> CFunc:
        with self._lock:
            if elements not in self._compiled:
                made: Any = CFunc(_worker(self.function, elements, self.record), ((types.int64,), types.void), {}, {})
                made._cache = DiskCache(self.function, elements)
                timer = threading.Timer(PATIENCE_S, _say)
                timer.daemon = True
                timer.start()
                try:
                    made.compile()
                finally:
                    timer.cancel()
                self._compiled[elements] = made
            return self._compiled[elements]


def kernel(record: np.dtype[Any]) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator: see `Kernel`."""
    return lambda function: Kernel(function, record)


_BOUND: dict[int, Callable[..., Any]] = {  # numba counts a function's arguments by its signature
    1: lambda f, a: lambda params, task: f(a, params, task),
    2: lambda f, a, b: lambda params, task: f(a, b, params, task),
    3: lambda f, a, b, c: lambda params, task: f(a, b, c, params, task),
    4: lambda f, a, b, c, d: lambda params, task: f(a, b, c, d, params, task),
}


def _worker(function: Callable[..., Any], elements: tuple[Element, ...], record: np.dtype[Any]) -> Callable[..., Any]:
    """The function to compile: it takes tasks of the job at an address until none is left."""
    compiled = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)  # inlined into `work` they were 2 % slower
    do = compiled(_BOUND[len(elements)](compiled(function), *elements))

    def work(job: int) -> None:
        n_tasks = carray(pointer_to(job), 3, np.int64)[2]
        params = carray(pointer_to(job + HEAD), 1, record)
        task = count_up(job)
        while task < n_tasks:
            do(params, task)
            count_up(job + 8)
            task = count_up(job)

    return work


def _say() -> None:
    """Say once per process that the first call compiles."""
    if not _told.is_set():
        _told.set()
        sys.stderr.write(f"salience: compiling CPU kernels, about half a minute, once (kept in {folder()})\n")
        sys.stderr.flush()
