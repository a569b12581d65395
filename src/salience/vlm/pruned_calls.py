"""Pruned calls of `forward` and `generate`: encode, choose, run a shorter prompt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from salience.core.cache_guard import guard, reading
from salience.core.transformers_names import CACHE_NAMES, cache_argument, cache_of_output
from salience.vlm.cache_state import CacheState
from salience.vlm.call_args import CallArgs, cached_columns, encode, forget_if_empty
from salience.vlm.families import EncodedViews
from salience.vlm.in_llm.dropping import InLLMDropping
from salience.vlm.in_llm.layer_columns import LayerColumns
from salience.vlm.original_gaps import OriginalGaps
from salience.vlm.pruned_inputs import PrunedInputs, model_arguments, pruned_inputs
from salience.vlm.pruning import Pruning
from salience.vlm.token_choice import kept_whole, merging_schedule, select_tokens, token_contexts
from salience.vlm.tower.fingerprint import tower_fingerprint
from salience.vlm.trace import ImageTrace, LastTraces, Trace
from salience.vlm.unpruned_prompt import UnprunedPrompt, effective

if TYPE_CHECKING:
    from transformers import Cache

_GUIDANCE = frozenset({"input_ids", "attention_mask", "use_cache", *CACHE_NAMES})  # what its processor calls with


class _ThreadState(threading.local):
    """State of the running thread.

    generates: it is inside a pruned generate, on a prompt of `prompt` columns; `guided`: with a `guidance_scale`.
    passes: it is inside a generate without pictures.
    """

    generates = False
    prompt = 0
    guided = False
    passes = False


class PrunedCalls:
    """The calls of one model under one pruning, in any number of threads."""

    def __init__(self, pruning: Pruning) -> None:
        self.pruning, self.traces = pruning, LastTraces()
        self._adapter, self._model = pruning.adapter, pruning.adapter.model
        self.cache_name = cache_argument(self._model.forward, self._adapter.language_model.forward)
        self.dropping, self.gaps = InLLMDropping(pruning), OriginalGaps(pruning)
        self._thread = _ThreadState()

    @property
    def inside_generate(self) -> bool:
        """Whether this thread is inside a generate, of a pruned prompt or of text."""
        return self._thread.generates or self._thread.passes

    def prunes_forward(self, args: tuple[Any, ...], options: dict[str, Any], *, active: bool) -> bool:
        """Whether a forward gets pruned arguments. A pruned generate stays pruned until its end, also after `undo`.

        Forwards of `guidance_scale` don't: its processor reads a text of its own beside the prompt. They pass no more
        than ids, a mask and a cache of their own; steps of generate come with positions.
        """
        thread = self._thread
        guidance = thread.generates and thread.guided and len(args) <= 1 and options.keys() <= _GUIDANCE
        return (active or thread.generates) and not thread.passes and not guidance

    def before_forward(self, args: CallArgs) -> tuple[dict[str, Any], CacheState | None]:
        """The arguments of the model's own forward, and the state of its cache if the call brought pictures."""
        visual_ids = self._adapter.token_ids.values()
        if self._thread.generates:
            args.refuse_lost(self._thread.prompt, visual_ids)
            return self._adapter.forward_layout(args.step()), None
        cache = args.cache
        forget_if_empty(cache)
        if cached := cached_columns(cache):
            state = self._state_on(cache, args)
            return (state.forward_arguments(args, cached) if state else args.values), None
        if args.is_text(visual_ids):
            return args.values, None
        if args.tensor("logits_to_keep") is not None:
            raise ValueError("logits_to_keep must be a number while pruning, not a tensor of columns that may be gone.")
        encoded, options = encode(self._adapter, args, merging_schedule(self.pruning))
        pruned = self._prune(encoded, args, args.mask(), generating=False)
        left = CacheState.of(self._adapter, pruned, args.ids)
        self._remember(cache, left)  # before it runs: it may fail with the cache filled
        return self._adapter.forward_layout(model_arguments(self._adapter, pruned, options)), left

    def after_forward(self, result: Any, cache: Cache | None, left: CacheState) -> None:
        """Note the call on the cache that it filled, the caller's `cache` or a new one, and in the trace."""
        filled = cache_of_output(result) if cache is None else cache
        if cache is None:
            self._remember(filled, left)
        self.dropping.leave_on(filled)
        self.gaps.leave_on(filled)
        self.traces.set(self.dropping.traced(self.traces.get()))

    def generate(self, original: Callable[..., Any], args: CallArgs) -> Any:
        """The model's own `generate` on a shorter prompt; its result as if the prompt were whole."""
        cache, model = args.cache, self._model
        forget_if_empty(cache)
        if cached := cached_columns(cache):
            state = self._state_on(cache, args)
            if state is None:
                return self._pass(original, args)
            whole, options = state.generate_arguments(args, cached, model)
            whole.require_room(args.values, model)
            if LayerColumns.on(cache) is not None:
                self.dropping.refuse_guessing(args)
            return self._run(original, args, whole, options)
        if args.is_text(self._adapter.token_ids.values()):
            return self._pass(original, args)
        encoded, options = encode(self._adapter, args, merging_schedule(self.pruning))
        # new padding always goes left here: generate continues from the last column, which must stay the row's own
        pruned = self._prune(encoded, args, args.generation_mask(model), generating=True, side="left")
        whole = UnprunedPrompt(args.ids, pruned.input_ids.shape[1], pruned.input_ids)
        whole.require_room(args.values, model)
        beams = int(effective("num_beams", args.values, model) or 1)
        times = max(beams, int(effective("num_return_sequences", args.values, model) or 1))
        left = CacheState.of(self._adapter, pruned, args.ids, times=times, beams=beams > 1)
        self._remember(cache, left)  # before it runs: it may fail with the cache filled
        options = model_arguments(self._adapter, pruned, options)
        return self._run(original, args, whole, options, left)

    def _run(
        self, generate: Callable[..., Any], args: CallArgs, whole: UnprunedPrompt, options: dict[str, Any],
        left: CacheState | None = None,
    ) -> Any:  # fmt: skip
        """Run the model's own generate on the arguments `options`; left: the cache's state, where this call prunes."""
        thread, cache = self._thread, args.cache
        options = whole.arguments(options, self._model)
        thread.generates, thread.prompt = True, 0 if left is None else whole.length
        thread.guided = effective("guidance_scale", options, self._model) not in (None, 1)
        try:
            with nullcontext() if cache is None else reading(cache):
                result = generate(**options)
        finally:
            thread.generates = False
        if left is not None:
            self.traces.set(self.dropping.traced(self.traces.get()))
            if cache is None:
                self._remember(cache_of_output(result), left)
        return _restored(result, whole, custom=args.get("custom_generate") is not None)

    def _pass(self, generate: Callable[..., Any], args: CallArgs) -> Any:
        """A generate that is none of pruning's business."""
        self._thread.passes = True
        try:
            return generate(**args.values)
        finally:
            self._thread.passes = False

    def _prune(
        self, encoded: EncodedViews, args: CallArgs, mask: Tensor, *, generating: bool, side: str | None = None
    ) -> PrunedInputs:
        """Choose tokens, cut the prompt, and note both in the trace."""
        pruning, adapter, ids = self.pruning, self._adapter, args.ids
        if mask.shape != ids.shape:
            raise ValueError(f"attention_mask must have input_ids' shape {tuple(ids.shape)}, not {tuple(mask.shape)}.")
        positions = args.get("position_ids")
        if positions is None:
            positions = adapter.position_ids(args.values, mask, generating=generating)
        contexts = token_contexts(pruning, encoded)
        selections = select_tokens(pruning, encoded, contexts, ids, mask)
        pruned = pruned_inputs(
            adapter, encoded, selections, ids, mask, positions, positions=pruning.positions, side=side
        )
        self._refuse_packing(pruned)
        self.dropping.prepare(encoded, selections, pruned, args, generating=generating)
        self.gaps.prepare(pruned, mask)
        views = zip(encoded.grids, encoded.pictures, selections, strict=True)
        trace = Trace(
            images=tuple(
                ImageTrace(grid=grid, picture=i, scores=s.scores, kept=s.kept, merge=s.merge) for grid, i, s in views
            ),
            columns=pruned.columns.index.cpu().unbind(),
            substitute="; ".join(filter(None, [pruning.substitute, pruning.method.remark(contexts)])),
            note=kept_whole(pruning, contexts),
        )
        self.traces.set(trace)
        adapter.set_rope_deltas(pruned.deltas)
        return pruned

    def _state_on(self, cache: Cache, args: CallArgs) -> CacheState | None:
        """The state that a pruned call left on a filled cache; None if the cache was filled without pruning.

        Raises:  ValueError when the call brings pictures, or another model filled the cache
        """
        if args.has_pictures:
            raise ValueError("pictures can be pruned in the first turn only: pass no pixel_values with a filled cache.")
        state = CacheState.on(cache)
        if state is not None:
            state.require_model(self._language_model)
        return state

    @cached_property
    def _language_model(self) -> dict[str, Any]:
        """Fingerprint of the language model, for the notes on caches."""
        return tower_fingerprint(self._adapter.language_model)

    def _remember(self, cache: Cache | None, left: CacheState) -> None:
        """Note a pruned prompt on the cache that it fills; a cache that lacks columns is guarded."""
        if cache is None:
            return
        left.leave_on(cache, self._language_model)
        if left.changed or self.dropping.drops:
            guard(cache)

    def _refuse_packing(self, pruned: PrunedInputs) -> None:
        """Refuse what FlashAttention reads as several packed sequences: one row whose positions have gaps.

        Of several axes it sees the text's at most, which have no gaps.
        """
        kernel = str(getattr(self._adapter.language_model.config, "_attn_implementation", ""))
        rows = pruned.input_ids.shape[0]
        if "flash" not in kernel or pruned.deltas is not None or self.pruning.compact or rows > 1:
            return
        if bool(pruned.columns.dropped.any()):
            raise ValueError("FlashAttention misreads one row's original positions: use positions='compact', or sdpa.")


def _restored(result: Any, whole: UnprunedPrompt, *, custom: bool) -> Any:
    """generate's result with the caller's prompt in front, whole; a `custom_generate` may return what it likes."""
    if isinstance(result, Tensor):
        return result if custom and not whole.begins(result) else whole.restore(result)
    if custom and type(result) in (tuple, list):
        return type(result)(_restored(part, whole, custom=True) for part in result)
    if not custom or isinstance(getattr(result, "sequences", None), Tensor):
        result.sequences = whole.restore(result.sequences)
    return result
