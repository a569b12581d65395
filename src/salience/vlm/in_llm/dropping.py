"""Dropping of tokens inside the language model, for the calls of one model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from salience.core.cache_guard import reading
from salience.core.types import Selection
from salience.ops.tokens import padding_side
from salience.vlm.call_args import CallArgs, cached_columns
from salience.vlm.families import EncodedViews
from salience.vlm.in_llm.layer_columns import LayerColumns
from salience.vlm.in_llm.layer_hooks import Prefill, layer_masks
from salience.vlm.in_llm.layer_kinds import is_checkpointed
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import in_llm_pictures
from salience.vlm.pruned_inputs import PrunedInputs
from salience.vlm.pruning import Pruning
from salience.vlm.trace import Trace
from salience.vlm.unpruned_prompt import effective

if TYPE_CHECKING:
    from transformers import Cache


class _ThreadPrefill(threading.local):
    prefill: Prefill


class InLLMDropping:
    """One model whose method may drop tokens inside the language model.

    Raises:  ValueError when the method does, and the language model has no layers for it or gaps are to be closed
    """

    def __init__(self, pruning: Pruning) -> None:
        self._adapter, self._budget, self._method = pruning.adapter, pruning.budget, pruning.in_llm
        self._thread = _ThreadPrefill()
        if self._method is None:
            return
        name = self._method.name
        if self._adapter.language_model is self._adapter.model.base_model:
            raise ValueError(
                f"method {name!r} drops tokens inside the language model, which {type(self._adapter.model).__name__} "
                "does not have as a module of its own: use a method that prunes before it, such as 'uniform'."
            )
        self._method.drops(self._decoder.depth)
        if pruning.compact:
            raise ValueError(
                f"positions can't be 'compact' with method {name!r}, in front of whose layers keys already have their "
                "places: use 'original'."
            )

    @cached_property
    def _decoder(self) -> LLMLayers:
        return LLMLayers(self._adapter.language_model)

    @property
    def drops(self) -> bool:
        """Whether this thread's prepared call drops tokens inside the language model."""
        return self._method is not None and not self._thread.prefill.drops_nothing

    def prepare(
        self, encoded: EncodedViews, selections: Sequence[Selection], pruned: PrunedInputs, args: CallArgs, *,
        generating: bool,
    ) -> None:  # fmt: skip
        """Prepare this thread's prefill of a call with pictures; raise a ValueError for options that it rules out."""
        if self._method is None:
            return
        self._refuse(self._method.name, args, generating=generating)
        pictures = in_llm_pictures(self._adapter, encoded, selections, pruned, self._budget)
        mask = pruned.attention_mask
        side = "left" if generating else padding_side(mask)
        self._thread.prefill = Prefill(self._decoder, self._method, pictures, mask, side=side)
        if generating and self.drops:
            self.refuse_guessing(args)

    def refuse_guessing(self, args: CallArgs) -> None:
        """Raise a ValueError for decoding that takes guessed tokens back from a cache whose layers differ in length."""
        if self._method is None:
            return
        for option in ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit"):
            if effective(option, args.values, self._adapter.model):
                raise ValueError(
                    f"{option} guesses tokens and takes wrong ones back from the cache, whose layers have lengths of "
                    f"their own with method {self._method.name!r}: leave it out, or use a method that prunes before "
                    "the language model."
                )

    def _refuse(self, name: str, args: CallArgs, *, generating: bool) -> None:
        model = self._adapter.model
        if generating and effective("use_cache", args.values, model) is False:
            raise ValueError(f"method {name!r} drops tokens once, what follows reads the cache: leave use_cache on.")
        if generating and effective("prefill_chunk_size", args.values, model):
            raise ValueError(f"method {name!r} needs the whole prompt at once: leave prefill_chunk_size out.")
        if args.get("labels") is not None:
            raise ValueError(
                f"labels can't be shortened inside the language model, where method {name!r} drops tokens: take the "
                "loss from logits and trace.columns, or use a method that prunes before it."
            )
        if is_checkpointed(self._decoder.language_model):
            raise ValueError(f"method {name!r} can't drop tokens twice, as gradient checkpointing would: turn it off.")

    @contextmanager
    def forward(self, args: CallArgs) -> Iterator[None]:
        """Hooks of this thread while the model's own forward runs with these arguments.

        Raises:  ValueError when its cache can't hold a length for each layer
        """
        from transformers import DynamicCache

        cache = args.cache
        with nullcontext() if cache is None else reading(cache):
            is_filled = cached_columns(cache) > 0
            columns = LayerColumns.on(cache) if is_filled else None
            if columns is not None:  # whichever method is in force now
                with layer_masks(self._decoder, cache, columns, args.get("attention_mask")):
                    yield
            elif self._method is None or is_filled or not args.has_encoded:
                yield
            elif cache is not None and not isinstance(cache, DynamicCache) and self.drops:
                raise ValueError(
                    f"method {self._method.name!r} leaves each layer a length of its own, which a "
                    f"{type(cache).__name__} does not hold: use the default cache."
                )
            else:
                with self._thread.prefill.running():
                    yield
                self.leave_on(cache)

    def leave_on(self, cache: Cache | None) -> None:
        """Note on the cache of this thread's call which columns each layer holds."""
        columns = None if self._method is None else self._thread.prefill.layer_columns
        if columns is not None and cache is not None:
            columns.leave_on(cache)

    def traced(self, trace: Trace) -> Trace:
        """The trace of this thread's call, with what was dropped inside the language model."""
        if self._method is None:
            return trace
        prefill = self._thread.prefill
        images = tuple(
            replace(
                image, kept=picture.kept, scores=picture.scores, entered=image.kept, stages=tuple(picture.stage_traces)
            )
            for image, picture in zip(trace.images, prefill.pictures, strict=True)
        )
        columns = trace.columns
        if (found := prefill.layer_columns) is not None:
            last = found.cuts[-1].index[:: prefill.times].cpu()
            columns = tuple(
                torch.where(left >= 0, row[left.clamp_min(0)], -1) for row, left in zip(columns, last, strict=True)
            )
        return replace(trace, images=images, columns=columns)
