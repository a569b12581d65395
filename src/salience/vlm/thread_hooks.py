"""Forward hooks that each thread sets for its own calls.

All threads share a module's dictionary of hooks, and torch iterates over it while it runs the module: adding or
removing a hook breaks the calls of other threads. So a module gets one shared hook before it and one after it. The
shared hook runs the hooks of the current thread, and it stays until no thread needs it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

lock = threading.RLock()  # held while a module's hooks change, and while a model is copied
_here = threading.local()  # `calls`: the `RunningCalls` that this thread's call belongs to
_MARK = "_salience_hook"


@dataclass(frozen=True)
class ThreadHook:
    """A hook for one thread's runs of a module.

    "before" the module: `hook(module, args, kwargs)` returns new args and kwargs, or None to leave them.
    "after" it: `hook(module, args, output)` returns a new output, or None to leave it.
    """

    module: nn.Module
    place: Literal["before", "after"]
    hook: Callable[..., Any]


class _SharedHook:
    """The one hook before or after a module, on it while it has users."""

    def __init__(self, module: nn.Module, place: str) -> None:
        self.module, self.place = weakref.ref(module), place
        self.mine = threading.local()  # `hooks`: a tuple, this thread's
        self.users = 0
        self._handle: Any = None

    def acquire(self) -> None:
        module = self.module()
        if self.users == 0 and module is not None:
            hook: Any = _run_hooks(self.place, self.mine)
            setattr(hook, _MARK, True)
            if self.place == "before":
                self._handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            else:
                self._handle = module.register_forward_hook(hook)
        self.users += 1

    def release(self) -> None:
        self.users -= 1
        if self.users == 0 and self._handle is not None:
            self._handle.remove()
            self._handle = None


_shared: weakref.WeakKeyDictionary[nn.Module, dict[str, _SharedHook]] = weakref.WeakKeyDictionary()


def _run_hooks(place: str, mine: threading.local) -> Callable[..., Any]:
    """The hook function on a module: it runs this thread's hooks, each on the result of the one before."""

    def run_hooks(module: nn.Module, args: Any, last: Any = None) -> Any:
        # `last` is kwargs or the output. torch first registers a hook and then that it wants kwargs: in between another
        # thread may call it without them.
        changed = False
        for hook in getattr(mine, "hooks", ()):
            new = hook(module, args, last)
            if new is not None:
                (args, last), changed = new if place == "before" else (args, new), True
        return ((args, last) if place == "before" else last) if changed else None

    return run_hooks


@contextmanager
def hooked(*hooks: ThreadHook) -> Iterator[None]:
    """Set hooks for this thread's runs of their modules, and remove them on leaving.

    Inside a call of `RunningCalls` the shared hook, which then does nothing, stays until the last of these calls ends.
    """
    calls: RunningCalls | None = getattr(_here, "calls", None)
    shared = []
    with lock:
        for hook in hooks:
            places = _shared.setdefault(hook.module, {})
            shared_hook = places.setdefault(hook.place, _SharedHook(hook.module, hook.place))
            shared_hook.acquire()
            shared.append(shared_hook)
            if calls is not None:
                calls.keep(shared_hook)
    for shared_hook, hook in zip(shared, hooks, strict=True):
        shared_hook.mine.hooks = (*getattr(shared_hook.mine, "hooks", ()), hook.hook)
    try:
        yield
    finally:
        for shared_hook in reversed(shared):
            shared_hook.mine.hooks = shared_hook.mine.hooks[:-1]
        with lock:
            for shared_hook in shared:
                shared_hook.release()


class RunningCalls:
    """The running calls of one handle, in all threads; `ended` is called when the last of them ends.

    A hooked module keeps its shared hook until the last call ends, so that hooks never change during a call.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self.running, self._ended = 0, ended
        self._kept: dict[_SharedHook, None] = {}

    def keep(self, shared_hook: _SharedHook) -> None:
        """Leave a shared hook on its module until the last call ends."""
        if shared_hook not in self._kept:
            self._kept[shared_hook] = None
            shared_hook.acquire()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Context of one call."""
        outer = getattr(_here, "calls", None)
        with lock:
            self.running += 1
            if self.running == 1:
                for shared_hook in self._kept:
                    shared_hook.acquire()
        _here.calls = self
        try:
            yield
        finally:
            _here.calls = outer
            with lock:
                self.running -= 1
                if not self.running:
                    for shared_hook in self._kept:
                        shared_hook.release()
                    self._ended()


def remove_hooks(model: nn.Module) -> None:
    """Remove our hooks from a copy of a model that was made during calls."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hasattr(hook, _MARK)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def is_offloaded(model: nn.Module) -> bool:
    """Whether accelerate keeps weights on another device between the runs of their modules."""
    hooks = [getattr(module, "_hf_hook", None) for module in model.modules()]
    return any(getattr(each, "offload", False) for hook in hooks for each in (hook, *getattr(hook, "hooks", ())))
