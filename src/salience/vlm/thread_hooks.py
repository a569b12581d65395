"""Hooks of many threads on one module.

A module has one dictionary of hooks for all threads, which torch goes through while it runs the module: adding or
removing a hook breaks the calls of other threads. So a module gets one hook of ours before it and one behind it, which
ask the running thread for its own listeners, and which stay until nobody is left who needs them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

lock = threading.RLock()  # held by whoever changes the hooks of a module, and by whoever copies a model
_here = threading.local()  # `calls`: those whose call this thread runs
_MARK = "_salience_listens"


@dataclass(frozen=True)
class ThreadHook:
    """A hook of one thread's call.

    place: "before" the module runs, then `hook(module, args, kwargs)` returns the two to run with or None; "after" it,
    then `hook(module, args, output)` returns an output to go on with or None.
    """

    module: nn.Module
    place: Literal["before", "after"]
    hook: Callable[..., Any]


class _Post:
    """The one hook before or behind a module, there while it has users."""

    def __init__(self, module: nn.Module, place: str) -> None:
        self.module, self.place = weakref.ref(module), place
        self.mine = threading.local()  # `listeners`: a tuple, this thread's
        self.users = 0
        self._handle: Any = None

    def acquire(self) -> None:
        module = self.module()
        if self.users == 0 and module is not None:
            hook: Any = (_before if self.place == "before" else _after)(self.mine)
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


_posts: weakref.WeakKeyDictionary[nn.Module, dict[str, _Post]] = weakref.WeakKeyDictionary()


def _before(mine: threading.local) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, kwargs: Any = None) -> Any:
        # torch notes that a hook wants the keywords after it notes the hook: another thread may call it without
        changed = False
        for listener in getattr(mine, "listeners", ()):
            new = listener(module, args, kwargs)
            if new is not None:
                (args, kwargs), changed = new, True
        return (args, kwargs) if changed else None

    return hook


def _after(mine: threading.local) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        changed = False
        for listener in getattr(mine, "listeners", ()):
            new = listener(module, args, output)
            if new is not None:
                output, changed = new, True
        return output if changed else None

    return hook


@contextmanager
def hooked(*listeners: ThreadHook) -> Iterator[None]:
    """Have these hooks in this thread's runs of their modules, and in no other's; they go again on leaving.

    Inside a call of `RunningCalls` the modules keep their (silent) hook until the last call of these ends.
    """
    posts = _open(listeners)
    try:
        yield
    finally:
        _close(posts)


def _open(listeners: tuple[ThreadHook, ...]) -> list[_Post]:
    calls: RunningCalls | None = getattr(_here, "calls", None)
    posts = []
    with lock:
        for listener in listeners:
            kinds = _posts.setdefault(listener.module, {})
            post = kinds.setdefault(listener.place, _Post(listener.module, listener.place))
            post.acquire()
            posts.append(post)
            if calls is not None:
                calls.keep(post)
    for post, listener in zip(posts, listeners, strict=True):
        post.mine.listeners = (*getattr(post.mine, "listeners", ()), listener.hook)
    return posts


def _close(posts: list[_Post]) -> None:
    for post in reversed(posts):
        post.mine.listeners = post.mine.listeners[:-1]
    with lock:
        for post in posts:
            post.release()


class RunningCalls:
    """The calls of one handle that are under way, in any thread.

    From the second call on, a module that an earlier one listened to has its hook before any of them begins and until
    the last of them ends, so that no call meets a change.   ended: what is done when the last of them ends.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self.running, self._ended = 0, ended
        self._kept: dict[_Post, None] = {}

    def keep(self, post: _Post) -> None:
        """Leave a module's hook on it until the last call ends."""
        if post not in self._kept:
            self._kept[post] = None
            post.acquire()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around one call."""
        outer = getattr(_here, "calls", None)
        self._begin()
        _here.calls = self
        try:
            yield
        finally:
            _here.calls = outer
            self._end()

    def _begin(self) -> None:
        with lock:
            self.running += 1
            if self.running == 1:
                for post in self._kept:
                    post.acquire()

    def _end(self) -> None:
        with lock:
            self.running -= 1
            if self.running:
                return
            for post in self._kept:
                post.release()
            self._ended()


def remove_hooks(model: nn.Module) -> None:
    """Take our hooks off a copy that was made while calls were under way."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hasattr(hook, _MARK)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def is_offloaded(model: nn.Module) -> bool:
    """Whether accelerate keeps weights elsewhere between the calls of their modules."""
    for module in model.modules():
        hook: Any = getattr(module, "_hf_hook", None)
        if any(getattr(each, "offload", False) for each in (hook, *getattr(hook, "hooks", ()))):
            return True
    return False
