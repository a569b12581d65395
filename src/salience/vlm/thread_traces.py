"""The last trace of a handle for each thread, and for each task of an event loop."""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any

from salience.vlm.trace import Trace


class LastTraces:
    """Reading gives the caller's own: its task's, else its thread's, else, if neither called, the last of any thread.

    So a thread that generates and the one that waits for it, which called nothing itself, read the same trace.
    """

    def __init__(self) -> None:
        self._last = Trace()
        self._of_thread = threading.local()
        self._of_task: weakref.WeakKeyDictionary[Any, Trace] = weakref.WeakKeyDictionary()

    def get(self) -> Trace:
        """The trace of the caller's last call that carried pictures."""
        task = _current_task()
        found: Trace | None = None if task is None else self._of_task.get(task)
        if found is None:
            found = getattr(self._of_thread, "trace", None)
        return self._last if found is None else found

    def set(self, trace: Trace) -> None:
        """Note the trace of a call of this thread."""
        if (task := _current_task()) is not None:
            self._of_task[task] = trace
        self._of_thread.trace = self._last = trace


def _current_task() -> Any:
    """The task that this thread runs; None outside of an event loop."""
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        return None
