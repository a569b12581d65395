"""The handle on a model that is being pruned."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import torch

from salience.vlm.cache_state import CacheState
from salience.vlm.call_args import CallArgs
from salience.vlm.families.registry import unwrapped
from salience.vlm.model_wrappers import OWNER, ModelWrappers
from salience.vlm.pruned_calls import PrunedCalls
from salience.vlm.pruning import Pruning
from salience.vlm.thread_hooks import RunningCalls, is_offloaded, lock
from salience.vlm.trace import Trace

_REPLICAS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


class Pruned:
    """A model being pruned: a context manager, and a handle with `undo()`.

    Any number of threads may call the model at once. `Pruned.of(model)` finds the handle again.

    method, budget, positions: in force; `method.name` says which method "auto" took.
    substitute: a clause on what replaces something that the method needs and this model lacks; empty if nothing does.
    """

    def __init__(self, pruning: Pruning) -> None:
        self.method, self.budget = pruning.method, pruning.budget
        self.positions, self.substitute = pruning.positions, pruning.substitute
        self._pruned_calls = PrunedCalls(pruning)
        self._model = model = pruning.adapter.model
        self._running = RunningCalls(ended=self._take_off_if_undone)
        # accelerate brings offloaded weights for one call and takes them away behind it, whoever else runs
        self._one_at_a_time: AbstractContextManager[Any] = threading.RLock() if is_offloaded(model) else nullcontext()
        self._active, self._entered = True, False
        wrappers = {"forward": self._wrap_forward(model.forward), "generate": self._wrap_generate(model.generate)}
        self._wrappers = ModelWrappers(model, self, wrappers)

    @classmethod
    def of(cls, model: object) -> Pruned | None:
        """The handle of the pruning in force on a model, so that a lost handle can be undone; None if there is none.

        Args:    model: any object, also a model in the wrapper of PEFT, of torch.compile, or of data parallelism
        Raises:  ValueError for a PEFT wrapper that learns a prompt, as `prune` does
        """
        handle = _handle_on(_innermost(model))
        return handle if handle is not None and handle._active else None

    @property
    def trace(self) -> Trace:
        """Trace of the last call that carried pictures.

        Each thread (or asyncio task) reads that of its own last call, and if it made none, any thread's.
        """
        return self._pruned_calls.traces.get()

    def explain(self) -> str:
        """The pruning in one to three sentences: method, budget, positions, and any substitute."""
        budget = ", ".join(f"{name}={value}" for name, value in self.budget.given.items())
        said = f"Visual tokens are pruned by {self.method.name!r} at {budget}, positions {self.positions!r}."
        notes = " ".join(filter(None, [self.substitute and f"{self.substitute}.", self._pruned_calls.gaps.remark]))
        return f"{said} Note: {notes}" if notes else said

    def undo(self) -> None:
        """Put the model back as it was; doing it again does nothing.

        Calls that other threads have begun end pruned, and the last of them puts the model back.
        """
        with lock:
            self._active = False
            if not self._running.running:
                self._take_off_if_undone()

    def _take_off_if_undone(self) -> None:
        if not self._active:
            self._wrappers.take_off()

    def __enter__(self) -> Pruned:
        if not self._active:
            raise ValueError("this pruning has been undone: call salience.prune again.")
        if self._entered:
            raise ValueError("this pruning is entered already: the inner `with` would end it for the outer one too.")
        self._entered = True
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __deepcopy__(self, memo: object) -> Pruned:
        return self  # of the one model: functions that others copy may hold it

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise ValueError(
            "a model that is being pruned can't be pickled or saved whole, nor can its handle, but its trace can: undo "
            "the pruning first, or save model.state_dict()."
        )

    def __repr__(self) -> str:
        state = "" if self._active else ", undone"
        return f"Pruned(method={self.method.name!r}, budget={self.budget}, positions={self.positions!r}{state})"

    def _wrap_forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`original` on pruned arguments. A graph of torch.compile holds the model alone: our part stays Python."""
        signature, calls = inspect.signature(original), self._pruned_calls
        disable: Any = torch.compiler.disable

        def prepare(args: Any, kwargs: dict[str, Any]) -> tuple[CallArgs, dict[str, Any], CacheState | None]:
            given = CallArgs.bind(signature, args, kwargs, calls.cache_name)
            return given, *calls.before_forward(given)

        before, after = disable(prepare), disable(calls.after_forward)

        @functools.wraps(original)  # also keeps `_supports_mm_encoder_outputs()` true: it reads the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            with self._one_at_a_time, self._running.one():  # first of all: a call under way keeps the wrappers on
                if not calls.prunes_forward(args, kwargs, active=self._active):
                    return original(*args, **kwargs)
                given, options, left = before(args, kwargs)
                run = CallArgs(options)
                with calls.dropping.forward(run), calls.gaps.forward(run):
                    result = original(**options)
                if left is not None:
                    after(result, given.cache, left)
            return result

        return torch._dynamo.decorators.skip(forward)

    def _wrap_generate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        signature, calls = inspect.signature(original), self._pruned_calls

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with self._one_at_a_time, self._running.one():
                if not self._active or calls.inside_generate:
                    return original(*args, **kwargs)
                with torch.no_grad():  # as generate itself does, which does not yet run while the tower does
                    return calls.generate(original, CallArgs.bind(signature, args, kwargs, calls.cache_name))

        return generate


def refuse_pruned(model: object) -> None:
    """Raise a ValueError when a pruning is in force on the model, or still in use by calls that began under it."""
    handle = _handle_on(model)
    if handle is None:
        return
    if handle._active:
        raise ValueError("the model is already being pruned: undo that first; salience.Pruned.of(model) is its handle.")
    if handle._running.running > 0:
        raise ValueError("a call that began before the last pruning was undone still runs: wait for it.")


def _handle_on(model: object) -> Pruned | None:
    """The handle whose wrappers are on the model itself."""
    owner = getattr(getattr(model, "forward", None), OWNER, None)  # a copy may show the original's
    return owner if isinstance(owner, Pruned) and owner._model is model else None


def _innermost(model: Any) -> Any:
    """The transformers model inside all wrappers."""
    outer = None
    while model is not outer:
        outer, model = model, unwrapped(model.module if isinstance(model, _REPLICAS) else model)
    return model
