"""A kernel's tasks on torch's own OpenMP threads.

After an operation, torch's threads spin for milliseconds (libgomp's default) and take cores from all other threads.
Using these threads avoids that, and they start at once. On an idle machine of two cores (Zen 5) the threads of `pool`
took 1.02 times as long for a prefill, 1.2 to 1.7 times for scan, convolution and decoding. Private API: the symbol
`GOMP_parallel` of torch's library.
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


def _forget() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
