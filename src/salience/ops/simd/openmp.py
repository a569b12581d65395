"""torch's own OpenMP threads, lent to a job of the pool.

After an operation of torch its threads wait busily for the next one, milliseconds on end (libgomp's default), and take
cores from any other thread meanwhile. Threads that work for us instead take nothing, and start at once.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

import torch

_forked = False


@cache
def _gomp_parallel() -> Any:
    """`GOMP_parallel` of the OpenMP library that torch runs on, or None: other systems, other thread pools."""
    if sys.platform != "linux" or "OpenMP" not in torch.__config__.parallel_info().partition("parallel backend")[2]:
        return None
    try:
        found = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint), None
    return found


def on_team(entry: Any, address: int, threads: int) -> bool:
    """entry(address) on so many of torch's threads, the caller among them; False where there is no team to ask.

    `entry` is compiled code that needs no GIL. A forked child is refused: libgomp would wait for its parent's threads.
    """
    if _forked or (parallel := _gomp_parallel()) is None:
        return False
    parallel(entry, address, threads, 0)
    return True


def _forget() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
