"""Distance in the whole prompt for layers that count columns: windows, chunks, convolutions and recurrences.

A layer with a window would reach further back once tokens are gone, and a convolution would see neighbours that were
none. Under original positions both see the gaps: the masks of such layers are cut to the distance in the whole prompt,
and recurrent parts run over the whole length with zeros where a token is gone, which is what they make of a masked one.
Under "compact" the gaps are closed for these layers as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.transformers_names import cache_in
from salience.vlm.families import Adapter
from salience.vlm.in_llm.layer_columns import additive, remembered
from salience.vlm.in_llm.layer_kinds import LayerKinds, Reach, is_checkpointed, layer_kinds
from salience.vlm.pruned_inputs import Positions, PrunedInputs
from salience.vlm.thread_hooks import ThreadHook, hooked

_NAME = "_salience_gaps"  # an attribute of the cache, so that a copy of the cache takes it along


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prompt:
    """index: (B, L), which column of the whole prompt each is, -1 for new padding.   width: of the whole prompt.

    first: (B, 1), the first column that is no padding.
    """

    index: Tensor
    width: int
    first: Tensor

    def columns(self, rows: int, count: int, device: torch.device) -> Tensor:
        """(rows, count): the column in the whole sequence of each of the first `count` that run.

        Raises:  ValueError when the rows are not the prompt's, each as many times
        """
        if rows % len(self.index):
            raise ValueError(f"the pruned prompt has {len(self.index)} rows, which {rows} do not come from.")
        index = self.index.to(device).repeat_interleave(rows // len(self.index), 0)
        more = torch.arange(self.width, self.width + max(0, count - index.shape[1]), device=device)
        return torch.cat([index, more.expand(rows, -1)], dim=1)[:, :count]


class OriginalGaps:
    """One language model, and what its layers are told of the tokens that are gone.

    Raises:  ValueError when it has layers whose distance cannot be kept
    """

    def __init__(self, adapter: Adapter, positions: Positions, *, inside: bool) -> None:
        self.language_model: Any = adapter.language_model
        self._now = threading.local()
        self.kinds = LayerKinds()
        if inside:  # such a method cuts the masks of the whole prompt, and is for layers without recurrences
            return
        kinds = layer_kinds(self.language_model)
        if kinds.unknown:
            raise ValueError(
                f"model is a {type(adapter.model).__name__} and cannot be pruned without changing what is left: "
                f"{kinds.unknown}."
            )
        if positions != "compact":
            self.kinds = kinds

    @property
    def remark(self) -> str:
        """Special treatment of the model's layers under original positions, a sentence; empty if there is none."""
        said = []
        if self.kinds.reaches:
            said.append("windows and chunks of its attention are measured in the whole prompt")
        if self.kinds.mixers:
            said.append(
                "its convolutions and recurrences run over the whole length, with zeros where a token is gone (use "
                "positions='compact' to run them on what is left alone)"
            )
        sentence = ", and ".join(said)
        return sentence[:1].upper() + sentence[1:] + "." if sentence else ""

    def prepare(self, pruned: PrunedInputs, mask: Tensor) -> None:
        """Before a call with pictures: its prompt; mask: (B, T), the whole prompt's."""
        columns = pruned.columns
        if not (self.kinds.reaches or self.kinds.mixers or self.kinds.scaled) or not bool(columns.dropped.any()):
            self._now.prompt = None
            return
        first = (mask != 0).long().argmax(1, keepdim=True)
        self._now.prompt = _Prompt(index=columns.index, width=columns.width, first=first)

    @contextmanager
    def forward(self, given: dict[str, Any]) -> Iterator[None]:
        """Around one run of the model's own forward with these arguments.

        Raises:  ValueError when an attention kernel or a chunked prefill makes the distance unreachable
        """
        cache = cache_in(given)
        past = int(cache.get_seq_length()) if cache is not None else 0
        prompt: _Prompt | None = None
        kinds = self.kinds
        if past > 0:
            prompt = getattr(cache, _NAME, None)
            kinds = kinds if prompt is None else self._kinds  # noted under original positions, whatever is in force now
        elif given.get("mm_encoder_outputs"):
            prompt = getattr(self._now, "prompt", None)
        if prompt is None:
            yield
            return
        ids = given.get("input_ids")
        new = ids.shape[1] if isinstance(ids, Tensor) else given["inputs_embeds"].shape[1]
        run = _Run(prompt, cache, past, new, given.get("attention_mask"))
        with hooked(*self._listeners(kinds, run)):
            yield
        self.leave_on(cache, prompt)

    def leave_on(self, cache: Any, prompt: _Prompt | None = None) -> None:
        """Note this thread's prompt on the cache that its call filled."""
        prompt = prompt or getattr(self._now, "prompt", None)
        if cache is not None and prompt is not None:
            setattr(cache, _NAME, prompt)

    @cached_property
    def _kinds(self) -> LayerKinds:
        return layer_kinds(self.language_model)

    def _listeners(self, kinds: LayerKinds, run: _Run) -> list[ThreadHook]:
        disable: Any = torch.compiler.disable
        total = run.prompt.width + max(0, run.past + run.new - run.prompt.index.shape[1])
        far = {index: reach for index, reach in kinds.reaches.items() if total > reach.size}
        kernel = str(getattr(self.language_model.config, "_attn_implementation", ""))
        if far and kernel not in ("sdpa", "eager"):
            raise ValueError(
                f"a window of {min(reach.size for reach in far.values())} tokens is measured in the whole prompt of "
                f"{total} with sdpa or eager attention, not {kernel}: use one of them, or positions='compact'."
            )
        # Of a layer that is run again in the backward pass what is inside has no hooks any more; in releases where its
        # call is checkpointed, and not its forward, neither has the layer.
        lost = bool(kinds.mixers) or any(type(kinds.layers[index]).__call__ is not nn.Module.__call__ for index in far)
        if lost and torch.is_grad_enabled() and is_checkpointed(self.language_model):
            raise ValueError(
                "gradient checkpointing runs layers once more, without the places of the tokens that are gone: turn it "
                "off, or use positions='compact'."
            )
        listeners = [
            ThreadHook(kinds.layers[index], "before", disable(run.windowed(index, reach, boolean=kernel == "sdpa")))
            for index, reach in far.items()
        ]
        listeners += [
            ThreadHook(attention.q_proj, "after", disable(run.scaled(attention)))
            for attention in self.kinds.scaled
            if total >= attention.floor_scale
        ]
        if run.past >= run.prompt.index.shape[1]:
            return listeners  # the tokens that follow a prompt have no gaps between them
        if kinds.mixers and run.past + run.new < run.prompt.index.shape[1]:
            raise ValueError(
                "the prompt of a model with convolutions or recurrences is pruned in one piece: leave "
                "prefill_chunk_size out."
            )
        for mixer in kinds.mixers.values():
            listeners += [
                ThreadHook(mixer, "before", disable(run.spread)), ThreadHook(mixer, "after", disable(run.gather)),
            ]  # fmt: skip
        return listeners


class _Run:
    """One run of the language model on `new` columns behind `past` cached ones; real: the call's own (B, columns)."""

    def __init__(self, prompt: _Prompt, cache: Any, past: int, new: int, real: Any) -> None:
        self.prompt, self.cache, self.past, self.new = prompt, cache, past, new
        self.real: Tensor | None = real if isinstance(real, Tensor) and real.dim() == 2 else None
        self._sizes: dict[Reach, tuple[int, int]] = {}
        self._made: dict[tuple[Reach, int], Callable[..., Any]] = {}

    def windowed(self, index: int, reach: Reach, *, boolean: bool) -> Callable[..., Any]:
        """A hook in front of a layer: its mask without what is out of its reach in the whole prompt."""

        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            if reach not in self._sizes:  # the first such layer's, before its own columns go into the cache
                sizes = self.cache.get_mask_sizes(self.new, index) if self.cache is not None else (self.new, 0)
                self._sizes[reach] = (int(sizes[0]), int(sizes[1]))
            make = self._made.setdefault(
                (reach, len(hidden)),
                remembered(lambda mask: self._mask(mask, reach, hidden, boolean=boolean)),
            )
            return args, {**kwargs, "attention_mask": make(kwargs.get("attention_mask"))}

        return hook

    def _mask(self, mask: Tensor | None, reach: Reach, hidden: Tensor, *, boolean: bool) -> Tensor:
        """(B, heads or 1, new, keys): the layer's mask, in its own form."""
        keys, offset = self._sizes[reach]
        keys = keys if mask is None else mask.shape[-1]
        rows, device = len(hidden), hidden.device
        columns = self.prompt.columns(rows, max(self.past + self.new, offset + keys), device)
        at = torch.arange(columns.shape[1], device=device)
        query, key = slice(self.past, self.past + self.new), slice(offset, offset + keys)
        mine, theirs = columns[:, query, None], columns[:, None, key]  # (B, new, 1), (B, 1, keys)
        causal = at[query, None] >= at[key]  # (new, keys)
        if mask is None:
            allowed = causal.expand(rows, 1, -1, -1)
        else:
            allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        if reach.chunked:
            first = self.prompt.first.to(device).repeat_interleave(rows // len(self.prompt.first), 0)[..., None]
            valid = columns[:, key] >= 0
            if self.real is not None:
                real = torch.nn.functional.pad(self.real.to(device) != 0, (0, columns.shape[1] - self.real.shape[1]))
                valid = valid & real.repeat_interleave(rows // len(real), 0)[:, key]
            same = (mine - first).div(reach.size, rounding_mode="floor") == (theirs - first).div(
                reach.size, rounding_mode="floor"
            )
            left = (causal & valid[:, None] & same)[:, None]
        else:
            near = (mine - theirs < reach.size)[:, None].expand(rows, allowed.shape[1], -1, -1)
            own = self.past - offset
            if own >= 0 and own + self.new <= keys:  # pairs that see each other do so whatever the distance: a picture
                among = allowed[..., own : own + self.new].expand(rows, -1, -1, -1)
                near = torch.cat(
                    [
                        near[..., :own],
                        near[..., own : own + self.new] | (among & among.mT),
                        near[..., own + self.new :],
                    ],
                    dim=-1,
                )
            left = allowed & near
        left = torch.where(left.any(-1, keepdim=True), left, allowed)  # a row of padding sees what it saw
        if boolean if mask is None else mask.dtype == torch.bool:
            return left
        return additive(left, hidden.dtype if mask is None else mask.dtype)

    def scaled(self, attention: Any) -> Callable[..., Any]:
        """A hook behind a query projection: the scale that the attention will give by column, corrected."""

        def scale(columns: Tensor) -> Tensor:
            steps = ((columns.clamp_min(0).float() + 1.0) / attention.floor_scale).floor()
            scales: Tensor = steps.log1p() * attention.attn_scale + 1.0
            return scales

        def hook(module: Any, args: Any, output: Tensor) -> Tensor:
            columns = self.prompt.columns(len(output), self.past + self.new, output.device)[:, self.past :]
            counted = torch.arange(self.past, self.past + self.new, device=output.device)
            corrected: Tensor = output * (scale(columns) / scale(counted))[..., None].to(output.dtype)
            return corrected

        return hook

    def spread(self, module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A hook in front of a recurrent part: the whole length, zeros and masked where a token is gone."""
        hidden = args[0] if args else kwargs["hidden_states"]
        index = self.prompt.columns(len(hidden), self.past + self.new, hidden.device)
        width = self.prompt.width + index.shape[1] - self.prompt.index.shape[1]
        place = index.masked_fill(index < 0, width)  # padding put in goes behind, and away
        whole = hidden.new_zeros(len(hidden), width + 1, hidden.shape[2])
        whole = whole.scatter(1, place[..., None].expand_as(hidden), hidden)[:, :width]
        real = torch.ones_like(index) if self.real is None else self.real.to(index)
        real = real.repeat_interleave(len(hidden) // len(real), 0)
        mask = real.new_zeros(len(hidden), width + 1).scatter(1, place, real)[:, :width]
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        return (whole, *args[1:]), {**rest, "attention_mask": mask}

    def gather(self, module: Any, args: Any, output: Any) -> Any:
        """A hook behind it: the columns that are left."""
        whole = output[0] if isinstance(output, tuple) else output
        index = self.prompt.columns(len(whole), self.past + self.new, whole.device).clamp_min(0)
        left = whole.gather(1, index[..., None].expand(-1, -1, whole.shape[2]))
        return (left, *output[1:]) if isinstance(output, tuple) else left
