"""What `prune` does between the language model's layers; nothing at all for a method that prunes before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from salience.core.cache_guard import reading
from salience.core.transformers_names import cache_in
from salience.core.types import Selection
from salience.ops.tokens import padding_side
from salience.vlm.call_args import is_filled
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.in_llm.layer_columns import LayerColumns
from salience.vlm.in_llm.layer_hooks import Prefill, layer_masks
from salience.vlm.in_llm.layer_kinds import is_checkpointed
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import in_llm_pictures
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.pruned_inputs import Positions, PrunedInputs
from salience.vlm.trace import Trace
from salience.vlm.unpruned_prompt import effective


class InLLMDropping:
    """One model's language model and a method that may drop tokens inside it.

    Raises:  ValueError when the method does, and the language model has no layers for it or gaps are to be closed
    """

    def __init__(self, adapter: Adapter, method: Method, budget: Budget, positions: Positions) -> None:
        self.adapter, self.budget = adapter, budget
        self.method = method if isinstance(method, InLLMMethod) else None
        self._now = threading.local()  # the prefill of this thread's call
        if self.method is not None:
            if adapter.language_model is adapter.model.base_model:
                kind = type(adapter.model).__name__
                raise ValueError(
                    f"method {method.name!r} drops tokens inside the language model, which {kind} does not have "
                    "as a module of its own: use a method that prunes before it, such as 'uniform'."
                )
            self.method.drops(self.decoder.depth)
            if positions == "compact":
                raise ValueError(
                    f"positions can't be 'compact' with method {method.name!r}, in front of whose layers keys already "
                    "have their places: use 'original'."
                )

    @cached_property
    def decoder(self) -> LLMLayers:
        """The language model's layers."""
        return LLMLayers(self.adapter.language_model)

    @property
    def drops(self) -> bool:
        """Whether this thread's call, which is prepared, drops tokens between layers."""
        return self.method is not None and not self._now.prefill.drops_nothing

    def prepare(
        self, encoded: EncodedViews, selections: Sequence[Selection], pruned: PrunedInputs, given: dict[str, Any], *,
        generating: bool,
    ) -> None:  # fmt: skip
        """Before a call with pictures: what its language model will be given.

        Raises:  ValueError when the call asks for what cannot go with tokens dropped between layers
        """
        if self.method is None:
            return
        self._refuse(self.method.name, given, generating=generating)
        pictures = in_llm_pictures(self.adapter, encoded, selections, pruned, self.budget)
        mask = pruned.attention_mask
        side = "left" if generating else padding_side(mask)
        self._now.prefill = prefill = Prefill(self.decoder, self.method, pictures, mask, side=side)
        if generating and not prefill.drops_nothing:
            self.refuse_guessing(given)

    def refuse_guessing(self, given: dict[str, Any]) -> None:
        """Refuse decoding that takes back guessed tokens, of which each layer's cache would keep others.

        Raises:  ValueError naming the option
        """
        if self.method is None:
            return
        for option in ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit"):
            if effective(option, given, self.adapter.model):
                raise ValueError(
                    f"{option} guesses tokens and takes wrong ones back from the cache, whose layers have lengths of "
                    f"their own with method {self.method.name!r}: leave it out, or use a method that prunes before the "
                    "language model."
                )

    def _refuse(self, name: str, given: dict[str, Any], *, generating: bool) -> None:
        model = self.adapter.model
        if generating and effective("use_cache", given, model) is False:
            raise ValueError(f"method {name!r} drops tokens once, what follows reads the cache: leave use_cache on.")
        if generating and effective("prefill_chunk_size", given, model):
            raise ValueError(f"method {name!r} looks at the whole prompt at once: leave prefill_chunk_size out.")
        if given.get("labels") is not None:
            raise ValueError(
                f"labels can't be cut along inside the language model, where method {name!r} drops tokens: take the "
                "loss from logits and trace.columns, or use a method that prunes before it."
            )
        if is_checkpointed(self.decoder.language_model):
            raise ValueError(f"method {name!r} can't drop tokens twice, as gradient checkpointing would: turn it off.")

    @contextmanager
    def forward(self, given: dict[str, Any]) -> Iterator[None]:
        """Around one run of the model's own forward with these arguments.

        Raises:  ValueError when its cache can't hold a length for each layer
        """
        cache = cache_in(given)
        with nullcontext() if cache is None else reading(cache), self._stages(given, cache):
            yield

    @contextmanager
    def _stages(self, given: dict[str, Any], cache: Any) -> Iterator[None]:
        held = LayerColumns.on(cache) if is_filled(cache) else None
        if (
            held is not None
        ):  # whichever method is in force now: it was filled by one that left layers their own columns
            with layer_masks(self.decoder, cache, held, given.get("attention_mask")):
                yield
        elif self.method is None or is_filled(cache):
            yield
        elif given.get("mm_encoder_outputs"):
            prefill: Prefill = self._now.prefill
            _refuse_fixed(self.method.name, cache, prefill)
            with prefill.running():
                yield
            self.leave_on(cache)
        else:
            yield

    def leave_on(self, cache: Any) -> None:
        """Note on the cache of this thread's call what its layers hold."""
        held = self._now.prefill.layer_columns if self.method is not None else None
        if held is not None and cache is not None:
            held.leave_on(cache)

    def traced(self, trace: Trace) -> Trace:
        """The trace of a call, with what was dropped between layers."""
        if self.method is None:
            return trace
        prefill: Prefill = self._now.prefill
        images = tuple(
            replace(image, kept=picture.kept, scores=picture.scores, entered=image.kept, stages=tuple(picture.stages))
            for image, picture in zip(trace.images, prefill.pictures, strict=True)
        )
        columns = trace.columns
        if (held := prefill.layer_columns) is not None:
            index = held.cuts[-1].index[:: prefill.times].cpu()
            pairs = zip(columns, index, strict=True)
            columns = tuple(torch.where(left >= 0, row[left.clamp_min(0)], -1) for row, left in pairs)
        return replace(trace, images=images, columns=columns)


def _refuse_fixed(name: str, cache: Any, prefill: Prefill) -> None:
    from transformers import DynamicCache

    if cache is not None and not isinstance(cache, DynamicCache) and not prefill.drops_nothing:
        raise ValueError(
            f"method {name!r} leaves each layer a length of its own, which a {type(cache).__name__} does not hold: use "
            "the default cache."
        )
