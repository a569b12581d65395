"""Hooks of one thread on a module are nobody else's, and come and go between calls alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from salience.vlm.thread_hooks import RunningCalls, ThreadHook, hooked, remove_hooks


def hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_pre_hooks, *module._forward_hooks, *module._forward_pre_hooks_with_kwargs]


def elsewhere(work: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_heard_by_the_thread_that_listens() -> None:
    module, x = nn.Linear(2, 2), torch.ones(1, 2)
    heard: list[str] = []
    before = ThreadHook(module, "before", lambda module, args, kwargs: heard.append("before"))
    after = ThreadHook(module, "after", lambda module, args, output: heard.append("after"))
    with hooked(before, after), torch.no_grad():
        elsewhere(lambda: module(x))
        assert heard == []
        module(x)
        assert heard == ["before", "after"]
    assert hooks(module) == []


def test_what_listeners_return_goes_on() -> None:
    """In the order in which they came; None leaves what was."""
    module, x = nn.Identity(), torch.ones(1)
    doubled = ThreadHook(module, "before", lambda module, args, kwargs: ((args[0] * 2,), kwargs))
    silent = ThreadHook(module, "before", lambda module, args, kwargs: None)
    more = ThreadHook(module, "after", lambda module, args, output: output + 1)
    with hooked(doubled, silent, more), hooked(doubled, more):
        assert module(x).item() == 6
        assert elsewhere(lambda: module(x)).item() == 1
    assert module(x).item() == 1


def test_a_half_registered_hook_is_silent() -> None:
    """torch registers a hook and then that it wants the keywords: another thread may run the module in between."""
    module, x = nn.Identity(), torch.ones(1)
    with hooked(ThreadHook(module, "before", lambda module, args, kwargs: ((args[0] * 2,), kwargs))):
        module._forward_pre_hooks_with_kwargs.clear()
        assert elsewhere(lambda: module(x)).item() == 1


def test_hooks_stay_while_calls_are_under_way() -> None:
    module = nn.Identity()
    ended: list[int] = []
    calls = RunningCalls(ended=lambda: ended.append(1))
    with calls.one():
        with hooked(ThreadHook(module, "before", lambda *given: None)):
            during = hooks(module)
        assert hooks(module) == during
        with calls.one():
            pass
        assert hooks(module) == during
        assert ended == []
    assert hooks(module) == []
    assert ended == [1]
    with calls.one():  # there from the beginning now
        assert len(hooks(module)) == len(during)


def test_copies_made_meanwhile_can_be_freed_of_them() -> None:
    import copy

    module = nn.Sequential(nn.Identity())
    module[0].register_forward_hook(print)
    with hooked(
        ThreadHook(module[0], "before", lambda *given: None), ThreadHook(module[0], "after", lambda *given: None)
    ):
        copied = copy.deepcopy(module)
    remove_hooks(copied)
    assert hooks(copied[0]) == hooks(module[0])
    assert len(hooks(module[0])) == 1
