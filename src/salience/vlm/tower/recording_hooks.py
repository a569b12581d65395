"""Removal of the hooks that transformers leaves on a model that recorded its hidden states."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from salience.vlm.thread_hooks import lock


class _Recording:
    """Removal of the hooks that transformers leaves on a tower to record hidden states.

    They are removed when the last of the threads that run the tower is done, because all of these share them.
    """

    mark = "_output_capturing_hooks_installed"

    def __init__(self) -> None:
        self.running = 0
        self.before: list[tuple[nn.Module, set[int], bool]] = []

    def begin(self, modules: Iterable[nn.Module]) -> None:
        self.running += 1
        if self.running == 1:
            self.before = [(m, set(m._forward_hooks), self.mark in m.__dict__) for m in modules]

    def end(self) -> None:
        self.running -= 1
        if self.running:
            return
        for module, hooks, marked in self.before:
            for key, hook in list(module._forward_hooks.items()):
                if key not in hooks and str(getattr(hook, "__module__", "")).startswith("transformers."):
                    del module._forward_hooks[key]
            if not marked:
                module.__dict__.pop(self.mark, None)
        self.before = []


_recordings: weakref.WeakKeyDictionary[nn.Module, _Recording] = weakref.WeakKeyDictionary()


@contextmanager
def no_recording_hooks(module: nn.Module, language_model: nn.Module) -> Iterator[None]:
    """Context of a run of `get_image_features`; hooks on the language model, which others may use, are left alone."""
    text = set(language_model.modules())
    with lock:
        recording = _recordings.setdefault(module, _Recording())
        recording.begin(m for m in module.modules() if m not in text)
    try:
        yield
    finally:
        with lock:
            recording.end()
