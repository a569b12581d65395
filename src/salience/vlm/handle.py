"""The handle on a model that is being pruned: what is put on the model, and how it comes off again."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from salience.core.cache_guard import guard, reading
from salience.core.precision import full_precision, under_autocast
from salience.core.transformers_names import CACHE_NAMES, cache_argument, named_cache
from salience.core.types import Selection, TokenContext
from salience.vlm.cache_state import CacheState
from salience.vlm.call_args import (
    by_name,
    cache_of,
    encode,
    forget_if_empty,
    generation_mask,
    is_filled,
    is_text,
    refuse_lost,
    with_mask,
)
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.in_llm.attachment import InLLMDropping
from salience.vlm.in_llm.layer_columns import LayerColumns
from salience.vlm.last_token import ending_views, with_last
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.model_copies import copying
from salience.vlm.original_gaps import OriginalGaps
from salience.vlm.pruned_inputs import Positions, PrunedInputs, model_arguments, pad_id, pruned_inputs
from salience.vlm.thread_hooks import RunningCalls, is_offloaded, lock
from salience.vlm.thread_traces import LastTraces
from salience.vlm.tower.fingerprint import tower_fingerprint
from salience.vlm.tower.tower_merging import Schedule
from salience.vlm.trace import ImageTrace, Trace
from salience.vlm.unpruned_prompt import UnprunedPrompt, effective

_MARK = "_salience_pruned"  # on our two wrappers, so that nobody prunes twice

_GUIDANCE = frozenset({"input_ids", "attention_mask", "use_cache", *CACHE_NAMES})  # what its processor calls with

_Note = tuple[Any, PrunedInputs, Tensor]  # the caller's cache, what was pruned, the caller's prompt


class Pruned:
    """A model being pruned: a context manager, and a handle with `undo()`.

    trace: of the last call that carried pictures: the reading thread's (or asyncio task's) own, or, if it has called
    nothing, any thread's. As many threads as one likes may call the model at once.
    method, budget, positions: what is in force; `method.name` says which method "auto" took.
    substitute: what stands in for something of the method's that this model lacks; empty if nothing does.
    """

    def __init__(
        self, adapter: Adapter, method: Method, budget: Budget, positions: Positions, substitute: str = ""
    ) -> None:
        self.method, self.budget, self.positions, self.substitute = method, budget, positions, substitute
        self._traces = LastTraces()
        self._adapter, self._model = adapter, adapter.model
        self._cache = cache_argument(adapter.model.forward, adapter.language_model.forward)
        self._inside = threading.local()  # set while our generate runs: the forwards below it are already pruned
        self._calls = RunningCalls(ended=self._take_off_if_undone)
        # accelerate brings offloaded weights for one call and takes them away behind it, whoever else runs
        self._turn: Any = threading.RLock() if is_offloaded(adapter.model) else nullcontext()
        self._between = InLLMDropping(adapter, method, budget, positions)
        self._gaps = OriginalGaps(adapter, positions, inside=isinstance(method, InLLMMethod))
        self._active, self._entered = True, False
        self._ours: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        for name, wrap in (("forward", self._wrap_forward), ("generate", self._wrap_generate)):
            self._before[name] = self._model.__dict__.get(name)
            self._ours[name] = wrap(getattr(self._model, name))
        for wrapper in self._ours.values():
            setattr(wrapper, _MARK, self)
        for name, function in copying(self._model, self._ours, self._before).items():
            self._before[name], self._ours[name] = self._model.__dict__.get(name), function
        self._model.__dict__.update(self._ours)

    @property
    def trace(self) -> Trace:
        """Trace of the last call that carried pictures."""
        return self._traces.get()

    def explain(self) -> str:
        """What is done to the model, in a sentence or two: method, budget, positions, and what stands in for what."""
        budget = ", ".join(f"{name}={value}" for name, value in vars(self.budget).items() if value is not None)
        said = f"Visual tokens are pruned by {self.method.name!r} at {budget}, positions {self.positions!r}."
        notes = [f"{self.substitute}."] if self.substitute else []
        notes += [self._gaps.remark] if self._gaps.remark else []
        return f"{said} Note: {' '.join(notes)}" if notes else said

    def undo(self) -> None:
        """Put the model back as it was; doing it again does nothing.

        Calls that other threads have begun end as they began, pruned, and the last of them puts the model back.
        """
        with lock:
            self._active = False
            if not self._calls.running:
                self._take_off_if_undone()

    def _take_off_if_undone(self) -> None:
        """Take ours off; whoever wrapped it meanwhile keeps theirs, and ours lets everything through."""
        if self._active:
            return
        for name, before in self._before.items():
            if self._model.__dict__.get(name) is not self._ours[name]:
                continue
            if before is None:
                del self._model.__dict__[name]
            else:
                self._model.__dict__[name] = before

    close = undo

    def __enter__(self) -> Pruned:
        if not self._active:
            raise ValueError("this pruning has been undone: call salience.prune again.")
        if self._entered:
            raise ValueError("this pruning is entered already: the inner `with` would end it for the outer one too.")
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __deepcopy__(self, memo: Any) -> Pruned:
        return self  # of the one model: functions that others copy may hold it

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ValueError("a handle on a pruned model can't be pickled: keep its trace.")

    def __repr__(self) -> str:
        state = "" if self._active else ", undone"
        return f"Pruned(method={self.method.name!r}, budget={self.budget}, positions={self.positions!r}{state})"

    def _wrap_forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`original` on pruned arguments. A graph of torch.compile holds the model alone: what we do stays Python."""
        signature = inspect.signature(original)
        disable: Any = torch.compiler.disable
        before, after = disable(self._before_forward), disable(self._after_forward)

        @functools.wraps(original)  # also keeps `_supports_mm_encoder_outputs()` true: it reads the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            with self._turn, self._calls.one():  # first of all: what is under way is not taken off the model
                if not (self._active or self._generates) or self._passes or self._is_guidance(args, kwargs):
                    return original(*args, **kwargs)
                options, note = before(signature, args, kwargs)
                with self._between.forward(options), self._gaps.forward(options):
                    result = original(**options)
                if note is not None:
                    after(result, note)
            return result

        return torch._dynamo.decorators.skip(forward)

    def _wrap_generate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with self._turn, self._calls.one():
                if not self._active or self._generates or self._passes:
                    return original(*args, **kwargs)
                with torch.no_grad():  # as generate itself does, which does not yet run while the tower does
                    return self._generate(original, by_name(signature, args, kwargs))

        return generate

    def _before_forward(
        self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], _Note | None]:
        """The arguments of the model's own forward, and what to remember of them; nothing inside our generate."""
        given = named_cache(by_name(signature, args, kwargs) if args else kwargs, self._cache)
        if self._generates:
            refuse_lost(given, self._inside.prompt, self._adapter.token_ids.values())
            return self._adapter.forward_layout(with_mask(given)), None
        cache: Any = given.get(self._cache)
        forget_if_empty(cache)
        if is_filled(cache):
            memory = self._memory(cache, given)
            return (memory.forward_arguments(given, int(cache.get_seq_length())) if memory else given), None
        if is_text(self._adapter, given):
            return given, None
        if isinstance(given.get("logits_to_keep"), Tensor):
            raise ValueError("logits_to_keep must be a number while pruning, not a tensor of columns that may be gone.")
        encoded, options = encode(self._adapter, given, self._schedule())
        pruned = self._prune(encoded, given, self._mask(given), generating=False)
        self._remember(cache, pruned, given["input_ids"])  # before, should the call fail with the cache filled
        options = self._adapter.forward_layout(model_arguments(self._adapter, pruned, options))
        return options, (cache, pruned, given["input_ids"])

    def _after_forward(self, result: Any, note: _Note) -> None:
        given, pruned, prompt = note
        cache = cache_of(result, given)
        if given is None:
            self._remember(cache, pruned, prompt)
        self._between.leave_on(cache)
        self._gaps.leave_on(cache)
        self._traces.set(self._between.traced(self.trace))

    def _generate(self, original: Callable[..., Any], given: dict[str, Any]) -> Any:
        if (inputs := given.pop("inputs", None)) is not None:
            given["input_ids"] = inputs
        given = named_cache(given, self._cache)
        cache: Any = given.get(self._cache)
        forget_if_empty(cache)
        if is_filled(cache):
            memory = self._memory(cache, given)
            if memory is None:
                return self._pass(original, given)
            whole, options = memory.generate_arguments(given, int(cache.get_seq_length()), self._model)
            whole.require_room(given, self._model)
            custom = given.get("custom_generate") is not None
            if LayerColumns.on(cache) is not None:
                self._between.refuse_guessing(given)
            with reading(cache):
                return _restored(self._run(original, whole.arguments(options, self._model)), whole, custom=custom)
        if is_text(self._adapter, given):
            return self._pass(original, given)
        encoded, options = encode(self._adapter, given, self._schedule())
        ids = given["input_ids"]
        # new padding always goes left here: generate goes on from the last column, which must stay the row's own
        mask = generation_mask(given, ids, self._model)
        pruned = self._prune(encoded, given, mask, generating=True, side="left")
        whole = UnprunedPrompt(ids, pruned.input_ids.shape[1], pruned.input_ids)
        whole.require_room(given, self._model)
        beams = int(effective("num_beams", given, self._model) or 1)
        times = max(beams, int(effective("num_return_sequences", given, self._model) or 1))
        self._remember(cache, pruned, ids, times=times, beams=beams > 1)  # before, should the call fail
        with nullcontext() if cache is None else reading(cache):
            options = whole.arguments(model_arguments(self._adapter, pruned, options), self._model)
            result = self._run(original, options, prompt=whole.length)
        self._traces.set(self._between.traced(self.trace))
        if cache is None:
            self._remember(cache_of(result, cache), pruned, ids, times=times, beams=beams > 1)
        return _restored(result, whole, custom=given.get("custom_generate") is not None)

    @property
    def _generates(self) -> bool:
        """Whether this thread is inside our generate."""
        return getattr(self._inside, "generate", False)

    @property
    def _passes(self) -> bool:
        """Whether this thread is inside a generate that has nothing to do with pictures."""
        return getattr(self._inside, "passes", False)

    def _is_guidance(self, args: tuple[Any, ...], options: dict[str, Any]) -> bool:
        """Whether a forward is one of `guidance_scale`, whose processor reads a text of its own beside the prompt.

        It passes no more than ids, a mask and a cache of its own; steps of generate come with positions.
        """
        return self._generates and self._inside.guided and len(args) <= 1 and options.keys() <= _GUIDANCE

    def _pass(self, generate: Callable[..., Any], options: dict[str, Any]) -> Any:
        self._inside.passes = True
        try:
            return generate(**options)
        finally:
            self._inside.passes = False

    def _run(self, generate: Callable[..., Any], options: dict[str, Any], prompt: int = 0) -> Any:
        self._inside.generate, self._inside.prompt = True, prompt
        self._inside.guided = effective("guidance_scale", options, self._model) not in (None, 1)
        try:
            return generate(**options)
        finally:
            self._inside.generate = False

    def _mask(self, given: dict[str, Any]) -> Tensor:
        """(B, T): the caller's mask, or one of ones."""
        ids, mask = given["input_ids"], given.get("attention_mask")
        return torch.ones_like(ids) if mask is None else mask

    def _prune(
        self, encoded: EncodedViews, given: dict[str, Any], mask: Tensor, *, generating: bool, side: str | None = None
    ) -> PrunedInputs:
        """Select, cut the prompt, and note it in the trace."""
        ids, positions = given["input_ids"], given.get("position_ids")
        if mask.shape != ids.shape:
            raise ValueError(f"attention_mask must have input_ids' shape {tuple(ids.shape)}, not {tuple(mask.shape)}.")
        if positions is None:
            positions = self._adapter.position_ids(given, mask, generating=generating)
        contexts = self._contexts(encoded)
        with full_precision(self._adapter.device):
            selections = self._select(contexts)
        for view in ending_views(self._adapter, encoded, ids, mask):
            selections[view] = with_last(selections[view], encoded.views[view].shape[0], self.method.name)
        pruned = pruned_inputs(
            self._adapter, encoded, selections, ids, mask, positions, positions=self.positions, side=side
        )
        self._refuse_packing(pruned)
        self._between.prepare(encoded, selections, pruned, given, generating=generating)
        self._gaps.prepare(pruned, mask)
        views = zip(encoded.grids, encoded.pictures, selections, strict=True)
        trace = Trace(
            images=tuple(
                ImageTrace(grid=grid, picture=i, scores=s.scores, kept=s.kept, merge=s.merge) for grid, i, s in views
            ),
            columns=pruned.columns.index.cpu().unbind(),
            substitute="; ".join(filter(None, [self.substitute, self.method.remark(contexts)])),
            note=self._kept_whole(contexts),
        )
        self._traces.set(trace)
        self._adapter.set_rope_deltas(pruned.deltas)
        return pruned

    def _contexts(self, encoded: EncodedViews) -> list[TokenContext]:
        """The method's context for each view, in the model's dtype; methods choose with autocast off."""
        found = [encoded.context(i, self.method.needs) for i in range(len(encoded))]
        if not under_autocast(self._adapter.device):
            return found
        dtype = self._model.dtype
        return [
            replace(
                context,
                features=context.features.to(dtype),
                projected=None if context.projected is None else context.projected.to(dtype),
            )
            for context in found
        ]

    def _schedule(self) -> Schedule | None:
        """What is merged inside the vision tower; None where nothing is, so that the tower runs as it is."""
        n, layers = self._adapter.n_tokens, self._adapter.merging_layers
        if not self.method.in_tower or n is None or not any(self.method.merges(n, layers, self.budget)):
            return None
        return lambda n, layers: self.method.merges(n, layers, self.budget)

    def _select(self, contexts: Sequence[TokenContext]) -> list[Selection]:
        """The tokens of each view that stay; where views have any size, one smaller than `tokens` stays whole."""
        if isinstance(self.method, InLLMMethod):
            return self.method.before(contexts, self.budget)
        tokens = self.budget.tokens
        if tokens is None or self._adapter.n_tokens is not None:
            return self.method.select_all(contexts, self.budget)
        sizes = [context.features.shape[0] for context in contexts]
        if min(sizes) >= tokens:
            return self.method.select_all(contexts, self.budget)
        found: list[Selection] = []
        for n, group in itertools.groupby(contexts, key=lambda context: context.features.shape[0]):  # a video is one
            found += self.method.select_all(list(group), Budget(tokens=min(tokens, n)))
        return found

    def _kept_whole(self, contexts: Sequence[TokenContext]) -> str:
        """Of views smaller than a count asks for, which only models that take any size have, a sentence."""
        tokens = self.budget.tokens or 0
        short = sum(context.features.shape[0] < tokens for context in contexts)
        return f"{short} of {len(contexts)} views have fewer than tokens={tokens} and stay whole." if short else ""

    def _memory(self, cache: Any, given: dict[str, Any]) -> CacheState | None:
        """What a pruned call left on a filled cache; None for a cache that was filled without pruning."""
        if any(given.get(name) is not None for name in ("pixel_values", "pixel_values_videos")) or given.get(
            "mm_encoder_outputs"
        ):
            raise ValueError("pictures can be pruned in the first turn only: pass no pixel_values with a filled cache.")
        memory = CacheState.of(cache)
        if memory is not None:
            memory.require_model(self._language_model)
        return memory

    @functools.cached_property
    def _language_model(self) -> dict[str, Any]:
        """Fingerprint of the language model, for the notes on caches."""
        return tower_fingerprint(self._adapter.language_model)

    def _remember(self, cache: Any, pruned: PrunedInputs, prompt: Tensor, times: int = 1, beams: bool = False) -> None:
        if cache is not None:
            memory = CacheState(
                columns=pruned.columns,
                prompt=prompt,
                mask=pruned.attention_mask,
                pad_id=pad_id(self._adapter),
                visual_ids=tuple(self._adapter.token_ids.values()),
                moved=pruned.moved,
                deltas=pruned.deltas,
                first_position=self._adapter.first_position,
                language_model=self._language_model,
            )
            memory.leave_on(cache, times=times, beams=beams)
            if memory.changed or self._between.drops:
                guard(cache)

    def _refuse_packing(self, pruned: PrunedInputs) -> None:
        """FlashAttention reads one row whose positions have gaps as several packed sequences, mask or no mask.

        Not where positions have several axes: it is shown the text's at most, which has no gaps.
        """
        if pruned.deltas is not None:
            return
        kernel = str(getattr(self._adapter.language_model.config, "_attn_implementation", ""))
        if "flash" not in kernel or self.positions == "compact" or pruned.input_ids.shape[0] > 1:
            return
        if bool(pruned.columns.dropped.any()):
            raise ValueError("FlashAttention misreads one row's original positions: use positions='compact', or sdpa.")


def _restored(result: Any, whole: UnprunedPrompt, *, custom: bool = False) -> Any:
    """generate's result with the caller's prompt in front, whole; a `custom_generate` may return what it likes."""
    if isinstance(result, Tensor):
        return result if custom and not whole.begins(result) else whole.restore(result)
    if custom and type(result) in (tuple, list):
        return type(result)(_restored(part, whole, custom=True) for part in result)
    if not custom or isinstance(getattr(result, "sequences", None), Tensor):
        result.sequences = whole.restore(result.sequences)
    return result


def is_leaving(model: Any) -> bool:
    """Whether what is on the model is undone, and stays for the calls that are under way."""
    handle = _handle_on(model)
    return handle is not None and not handle._active and handle._calls.running > 0


def is_pruned(model: Any) -> bool:
    """Whether a pruning is in force on the model, or still in use."""
    handle = _handle_on(model)
    return handle is not None and (handle._active or handle._calls.running > 0)


def _handle_on(model: Any) -> Pruned | None:
    """The handle that marked the model's forward; a copy's may have the mark of the original's."""
    handle: Pruned | None = getattr(model.forward, _MARK, None)
    return handle if handle is not None and handle._model is model else None
