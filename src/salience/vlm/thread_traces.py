"""The last trace of a handle for each thread and each asyncio task."""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from salience.vlm.trace import Trace

if TYPE_CHECKING:
    from asyncio import Task


class _ThreadTrace(threading.local):
    """The last trace of the running thread."""

    trace: Trace | None = None


class LastTraces:
    """Last traces. A caller reads that of its own task, else of its own thread, else the last of any thread.

    So a thread that generates and one that only waits for it, and calls nothing itself, read the same trace.
    """

    def __init__(self) -> None:
        self._last, self._thread = Trace(), _ThreadTrace()
        self._of_task: weakref.WeakKeyDictionary[Task[Any], Trace] = weakref.WeakKeyDictionary()

    def get(self) -> Trace:
        """The trace of the caller's last call that carried pictures."""
        task = _current_task()
        return (task and self._of_task.get(task)) or self._thread.trace or self._last

    def set(self, trace: Trace) -> None:
        """Note the trace of a call of this thread."""
        if (task := _current_task()) is not None:
            self._of_task[task] = trace
        self._thread.trace = self._last = trace


def _current_task() -> Task[Any] | None:
    """The task that this thread runs; None outside of an event loop."""
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        return None
