"""`@kernel`: a numba function compiled once for each combination of element types, off the GIL, cached on disk."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.core import types
from numba.np.numpy_support import from_dtype

from salience.ops.simd.cache import DiskCache, folder
from salience.ops.simd.element import Element
from salience.ops.simd.types import ELEMENT_TYPES

PATIENCE_S = 2.0  # after this long a first call says that it compiles
_told = threading.Event()

# For the functions that kernels are made of: nobody calls these from Python or C, and wrappers take time to compile.
inline = njit(nogil=True, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Kernel:
    """A function (tag, ..., p, task) of `tags` element tags, a parameter record and the number of the task to do.

    `kernel.compiled(*elements)` is the machine code for these element types: call it with (*elements, params, task),
    where `params` is a one-element numpy array of the dtype `record`. It holds no lock and not the GIL.
    """

    def __init__(self, function: Callable[..., Any], record: np.dtype[Any]) -> None:
        self.function, self.record = function, record
        self._dispatcher: Any = None
        self._entries: dict[tuple[Element, ...], Callable[..., None]] = {}
        self._lock = threading.Lock()

    def compiled(self, *elements: Element) -> Callable[..., None]:
        """The entry point for these element types, from memory, from disk or from the compiler."""
        entry = self._entries.get(elements)
        return entry if entry is not None else self._compile(elements)

    def _compile(self, elements: tuple[Element, ...]) -> Callable[..., None]:
        with self._lock:
            if elements not in self._entries:
                if self._dispatcher is None:
                    self._dispatcher = njit(nogil=True)(self.function)
                    self._dispatcher._cache = DiskCache(self.function)
                tags = [ELEMENT_TYPES[e] for e in elements]
                params = types.Array(from_dtype(self.record), 1, "C")
                timer = threading.Timer(PATIENCE_S, _say)
                timer.daemon = True
                timer.start()
                try:
                    self._entries[elements] = self._dispatcher.compile(types.void(*tags, params, types.int64))
                finally:
                    timer.cancel()
            return self._entries[elements]


def kernel(record: np.dtype[Any]) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator: see `Kernel`."""
    return lambda function: Kernel(function, record)


def _say() -> None:
    """Once a process: why the first call takes so long."""
    if not _told.is_set():
        _told.set()
        sys.stderr.write(f"salience: compiling CPU kernels, about half a minute, once (kept in {folder()})\n")
        sys.stderr.flush()
