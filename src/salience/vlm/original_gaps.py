"""Distances in the whole prompt, for layers with windows, chunks or recurrences.

On the shortened prompt a window would reach further back, and a convolution would read tokens that were not neighbours.
With original positions both respect the gaps: masks of windows and chunks are cut by the distance in the whole prompt,
and recurrent parts run over the whole length, with zeros where a token is gone, as they treat a masked token.
With "compact" positions the gaps are closed for these layers as well.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from salience.vlm.call_args import CallArgs, cached_columns
from salience.vlm.in_llm.layer_columns import additive, whole_columns
from salience.vlm.in_llm.layer_kinds import LayerKinds, Reach, is_checkpointed, layer_kinds
from salience.vlm.pruned_inputs import PrunedInputs
from salience.vlm.pruning import Pruning
from salience.vlm.thread_hooks import ThreadHook, hooked

if TYPE_CHECKING:
    from transformers import Cache

_NAME = "_salience_gaps"  # an attribute of the cache, so that a copy of the cache takes it along


@dataclass(frozen=True, kw_only=True, eq=False)
class GappedPrompt:
    """A pruned prompt, by its columns.

    index: (B, L), each one's column in the whole prompt, -1 for new padding.   width: of the whole prompt.
    first: (B, 1), the first column that is no padding.
    """

    index: Tensor
    width: int
    first: Tensor

    def columns(self, rows: int, count: int, device: torch.device) -> Tensor:
        """(rows, count): columns in the whole sequence of the first `count` that run."""
        total = self.width + count - self.index.shape[1]
        return whole_columns(self.index.to(device), rows, self.width, total)[:, :count]


class _ThreadPrompt(threading.local):
    prompt: GappedPrompt | None = None  # of the running thread's call; None where no layer needs its gaps


class OriginalGaps:
    """One language model whose layers are shown the gaps that pruning left.

    Raises:  ValueError when it has layers whose distances can't be kept
    """

    def __init__(self, pruning: Pruning) -> None:
        self.language_model: Any = pruning.adapter.language_model
        self._thread = _ThreadPrompt()
        self.kinds = LayerKinds()
        if pruning.in_llm is not None:  # it cuts the masks of the whole prompt, and refuses recurrent layers
            return
        kinds = self._kinds
        if kinds.unknown:
            raise ValueError(
                f"model is a {type(pruning.adapter.model).__name__} and cannot be pruned without changing what is "
                f"left: {kinds.unknown}."
            )
        if not pruning.compact:
            self.kinds = kinds

    @functools.cached_property
    def _kinds(self) -> LayerKinds:
        return layer_kinds(self.language_model)

    @property
    def remark(self) -> str:
        """Sentences on layers that get special treatment under original positions; empty if there are none."""
        said = []
        if self.kinds.reaches:
            said.append("Windows and chunks of its attention are measured in the whole prompt.")
        if self.kinds.mixers:
            said.append(
                "Its convolutions and recurrences run over the whole length, with zeros where a token is gone (use "
                "positions='compact' to run them on what is left alone)."
            )
        return " ".join(said)

    def prepare(self, pruned: PrunedInputs, mask: Tensor) -> None:
        """Prepare this thread's call with pictures; mask: (B, T), of the whole prompt."""
        columns, self._thread.prompt = pruned.columns, None
        if (self.kinds.reaches or self.kinds.mixers or self.kinds.scaled) and bool(columns.dropped.any()):
            first = (mask != 0).long().argmax(1, keepdim=True)
            self._thread.prompt = GappedPrompt(index=columns.index, width=columns.width, first=first)

    @contextmanager
    def forward(self, args: CallArgs) -> Iterator[None]:
        """Hooks of this thread while the model's own forward runs with these arguments.

        Raises:  ValueError when an attention kernel or a chunked prefill makes the distances impossible to keep
        """
        cache, past, kinds = args.cache, cached_columns(args.cache), self.kinds
        prompt: GappedPrompt | None = None
        if past > 0:
            prompt = getattr(cache, _NAME, None)
            kinds = kinds if prompt is None else self._kinds  # the cache says original positions, whatever is in force
        elif args.has_encoded:
            prompt = self._thread.prompt
        if prompt is None:
            yield
            return
        ids = args.tensor("input_ids")
        new = args.get("inputs_embeds").shape[1] if ids is None else ids.shape[1]
        with hooked(*self._hooks(kinds, _LayerRun(prompt, cache, past, new, args.tensor("attention_mask")))):
            yield
        self.leave_on(cache, prompt)

    def leave_on(self, cache: Cache | None, prompt: GappedPrompt | None = None) -> None:
        """Note a prompt, by default this thread's, on the cache that its call filled."""
        prompt = prompt or self._thread.prompt
        if cache is not None and prompt is not None:
            setattr(cache, _NAME, prompt)

    def _hooks(self, kinds: LayerKinds, run: _LayerRun) -> list[ThreadHook]:
        disable: Any = torch.compiler.disable
        total = run.prompt.width + max(0, run.past + run.new - run.prompt.index.shape[1])
        far = {index: reach for index, reach in kinds.reaches.items() if total > reach.size}
        kernel = str(getattr(self.language_model.config, "_attn_implementation", ""))
        if far and kernel not in ("sdpa", "eager"):
            raise ValueError(
                f"a window of {min(reach.size for reach in far.values())} tokens is measured in the whole prompt of "
                f"{total} with sdpa or eager attention, not {kernel}: use one of them, or positions='compact'."
            )
        # A layer that is run again in the backward pass no longer has hooks on its parts. In releases that checkpoint
        # the layer's call, and not its forward, it has none itself either.
        lost = bool(kinds.mixers) or any(type(kinds.layers[index]).__call__ is not nn.Module.__call__ for index in far)
        if lost and torch.is_grad_enabled() and is_checkpointed(self.language_model):
            raise ValueError(
                "gradient checkpointing runs layers once more, without the places of the tokens that are gone: turn it "
                "off, or use positions='compact'."
            )
        hooks = [
            ThreadHook(kinds.layers[index], "before", disable(run.windowed(index, reach, boolean=kernel == "sdpa")))
            for index, reach in far.items()
        ]
        hooks += [
            ThreadHook(attention.q_proj, "after", disable(run.scaled(attention)))
            for attention in self.kinds.scaled
            if total >= attention.floor_scale
        ]
        if run.past >= run.prompt.index.shape[1]:
            return hooks  # the tokens that follow a prompt have no gaps between them
        if kinds.mixers and run.past + run.new < run.prompt.index.shape[1]:
            raise ValueError(
                "the prompt of a model with convolutions or recurrences is pruned in one piece: leave "
                "prefill_chunk_size out."
            )
        for mixer in kinds.mixers.values():
            hooks.append(ThreadHook(mixer, "before", disable(run.spread)))
            hooks.append(ThreadHook(mixer, "after", disable(run.gather)))
        return hooks


class _LayerRun:
    """Hooks for one run of the language model, on `new` columns behind `past` cached ones.

    real: (B, columns), the call's own mask; one of another shape counts as none.
    """

    def __init__(self, prompt: GappedPrompt, cache: Cache | None, past: int, new: int, real: Tensor | None) -> None:
        self.prompt, self.cache, self.past, self.new = prompt, cache, past, new
        self.real = real if real is not None and real.dim() == 2 else None
        self._sizes: dict[Reach, tuple[int, int]] = {}
        self._made: dict[tuple[Reach, int], Callable[..., Any]] = {}

    def windowed(self, index: int, reach: Reach, *, boolean: bool) -> Callable[..., Any]:
        """A hook before a layer: its mask without the columns that are out of reach in the whole prompt."""

        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            hidden = args[0] if args else kwargs["hidden_states"]
            if reach not in self._sizes:  # asked by the first such layer, before its own columns go into the cache
                sizes = self.cache.get_mask_sizes(self.new, index) if self.cache is not None else (self.new, 0)
                self._sizes[reach] = (int(sizes[0]), int(sizes[1]))
            make = self._made.setdefault(
                (reach, len(hidden)), functools.cache(lambda mask: self._mask(mask, reach, hidden, boolean=boolean))
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
        causal = at[query, None] >= at[key]  # (new, keys)
        if mask is None:
            allowed = causal.expand(rows, 1, -1, -1)
        else:
            allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        if reach.chunked:
            left = self._same_chunk(columns, query, key, reach.size) & causal[None, None]
        else:
            left = allowed & self._near(columns, query, key, reach.size, allowed)
        left = torch.where(left.any(-1, keepdim=True), left, allowed)  # a row of padding sees what it saw
        if boolean if mask is None else mask.dtype == torch.bool:
            return left
        return additive(left, hidden.dtype if mask is None else mask.dtype)

    def _same_chunk(self, columns: Tensor, query: slice, key: slice, size: int) -> Tensor:
        """(B, 1, new, keys): whether both columns lie in one chunk of the whole prompt, and the key is no padding."""
        rows, device = columns.shape[0], columns.device
        first = self.prompt.first.to(device).repeat_interleave(rows // len(self.prompt.first), 0)
        chunk = (columns - first).div(size, rounding_mode="floor")  # (B, columns)
        valid = columns[:, key] >= 0
        if self.real is not None:
            real = torch.nn.functional.pad(self.real.to(device) != 0, (0, columns.shape[1] - self.real.shape[1]))
            valid = valid & real.repeat_interleave(rows // len(real), 0)[:, key]
        return (valid[:, None] & (chunk[:, query, None] == chunk[:, None, key]))[:, None]

    def _near(self, columns: Tensor, query: slice, key: slice, size: int, allowed: Tensor) -> Tensor:
        """(B, heads or 1, new, keys): whether a key lies within a window of the whole prompt."""
        rows = columns.shape[0]
        near = (columns[:, query, None] - columns[:, None, key] < size)[:, None]
        near = near.expand(rows, allowed.shape[1], -1, -1)
        own = query.start - key.start
        if not 0 <= own <= near.shape[-1] - self.new:
            return near
        # pairs that see each other do so whatever the distance: they belong to a picture
        here = slice(own, own + self.new)
        among = allowed[..., here].expand(rows, -1, -1, -1)
        near = near.clone()
        near[..., here] |= among & among.mT
        return near

    def scaled(self, attention: Any) -> Callable[..., Any]:
        """A hook after a query projection: the scale that the attention will give by column, corrected."""

        def scale(columns: Tensor) -> Tensor:
            steps = ((columns.clamp_min(0).float() + 1.0) / attention.floor_scale).floor()
            scales: Tensor = steps.log1p() * attention.attn_scale + 1.0
            return scales

        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            columns = self.prompt.columns(len(output), self.past + self.new, output.device)[:, self.past :]
            counted = torch.arange(self.past, self.past + self.new, device=output.device)
            corrected: Tensor = output * (scale(columns) / scale(counted))[..., None].to(output.dtype)
            return corrected

        return hook

    def spread(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A hook before a recurrent part: the whole length, zeros and masked where a token is gone."""
        hidden = args[0] if args else kwargs["hidden_states"]
        index = self.prompt.columns(len(hidden), self.past + self.new, hidden.device)
        width = self.prompt.width + index.shape[1] - self.prompt.index.shape[1]
        place = index.masked_fill(index < 0, width)  # new padding goes into a last column, which is cut off
        whole = hidden.new_zeros(len(hidden), width + 1, hidden.shape[2])
        whole = whole.scatter(1, place[..., None].expand_as(hidden), hidden)[:, :width]
        real = torch.ones_like(index) if self.real is None else self.real.to(index)
        real = real.repeat_interleave(len(hidden) // len(real), 0)
        mask = real.new_zeros(len(hidden), width + 1).scatter(1, place, real)[:, :width]
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        return (whole, *args[1:]), {**rest, "attention_mask": mask}

    def gather(self, module: nn.Module, args: Any, output: Any) -> Any:
        """A hook after it: the columns that are left."""
        whole = output[0] if isinstance(output, tuple) else output
        index = self.prompt.columns(len(whole), self.past + self.new, whole.device).clamp_min(0)
        left = whole.gather(1, index[..., None].expand(-1, -1, whole.shape[2]))
        return (left, *output[1:]) if isinstance(output, tuple) else left
