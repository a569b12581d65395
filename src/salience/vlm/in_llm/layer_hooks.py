"""Dropping tokens between the layers of an unmodified language model: hooks that are there for one call.

In the prefill a hook in front of a stage's layer shortens the hidden states, and hooks in front of all later ones
shorten the masks and positions that the model hands to each. Every layer so caches what it saw. When tokens follow, the
model makes one mask for all layers, so hooks give the later ones theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from salience.ops.tokens import remaining_columns
from salience.vlm.in_llm.layer_columns import LayerColumns, LayerCut, later_mask, remembered
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import InLLMPicture
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.thread_hooks import ThreadHook, hooked

_KERNELS = ("sdpa", "eager")


class Prefill:
    """One prefill with a method's stages, inside `running()`; `layer_columns` says afterwards what each layer holds.

    Args:    pictures: those of the prompt, whose state moves along   real: (B, L0), the prompt's mask
             side: where rows made unequal are padded
    Raises:  ValueError when the language model runs another attention kernel than sdpa or eager
    """

    def __init__(
        self, decoder: LLMLayers, method: InLLMMethod, pictures: Sequence[InLLMPicture], real: Tensor, *, side: str
    ) -> None:
        if decoder.kernel not in _KERNELS:
            raise ValueError(
                f"method {method.name!r} cuts the masks of sdpa and eager attention, not {decoder.kernel}'s: "
                "use model.set_attn_implementation('sdpa')."
            )
        self.decoder, self.method, self.pictures, self.side = decoder, method, pictures, side
        self.stages = method.drops(decoder.depth)
        self._prompts = real  # (B, L0)
        self._start(real)

    def _start(self, real: Tensor) -> None:
        self.real, self.times = real, real.shape[0] // self._prompts.shape[0]
        self.cuts: list[LayerCut] = []
        self._shares: Tensor | None = None
        self._embedded: Tensor | None = None
        self._rows: Tensor | None = None
        self._deep: list[Tensor] = []
        self._cut: Callable[..., Any] = lambda kind, value: value

    @property
    def drops_nothing(self) -> bool:
        """Whether the budget is all tokens, so that nothing need be put on the model."""
        return all(picture.keeps_all for picture in self.pictures)

    @property
    def layer_columns(self) -> LayerColumns | None:
        """What each layer holds; None where nothing was dropped."""
        return LayerColumns(width=self.real.shape[1], cuts=tuple(self.cuts)) if self.cuts else None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hooks while this thread runs the language model."""
        if self.drops_nothing:
            yield
            return
        first = self.stages[0] - (1 if self.method.looks == "last" else 0)
        listeners = [ThreadHook(self.decoder.language_model, "before", self._enter)]
        for index, layer in enumerate(self.decoder.layers):
            if index >= first:
                listeners.append(ThreadHook(layer, "before", self._layer(index)))
            listeners.append(ThreadHook(layer, "after", self._deepen(index)))
        with hooked(*listeners):
            yield

    def _enter(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The whole prompt's embeddings; tokens that the model would add in several layers are added here instead."""
        embedded = kwargs["inputs_embeds"]  # (B, L0, d)
        self._start(self._prompts.repeat_interleave(embedded.shape[0] // self._prompts.shape[0], 0))
        if embedded.shape[1] != self.real.shape[1]:
            raise ValueError(
                f"method {self.method.name!r} looks at the whole prompt of {self.real.shape[1]} columns at once, and "
                f"{embedded.shape[1]} came: leave prefill_chunk_size out, or what else cuts it up or adds to it."
            )
        self._embedded, self._rows = embedded, self._looking()
        deep = kwargs.get("deepstack_visual_embeds")
        if deep is None:
            return args, kwargs
        places = kwargs["visual_pos_masks"].to(embedded.device)
        for layer in deep:
            values = embedded.new_zeros(embedded.shape)
            values[places] = layer.to(embedded)
            self._deep.append(values)
        return args, {**kwargs, "deepstack_visual_embeds": None, "visual_pos_masks": None}

    def _deepen(self, index: int) -> Callable[..., Any]:
        def hook(module: Any, args: Any, output: Any) -> Any:
            if index >= len(self._deep):
                return None
            added = self._deep[index]
            added = self.cuts[-1].take(added, 1) if self.cuts else added
            return output + added.to(output.device)

        return hook

    def _layer(self, index: int) -> Callable[..., Any]:
        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            hidden = args[0] if args else kwargs["hidden_states"]
            seen = self._seen(kwargs)
            if index in self.stages:
                shares = self._shares if self.method.looks == "last" else self._look(index, hidden, seen)
                hidden = self._drop(index, hidden, shares)
                seen = self._seen(kwargs)
            if self.method.looks == "last" and index + 1 in self.stages:
                self._shares = self._look(index, hidden, seen)
            if args:
                return (hidden, *args[1:]), seen
            return args, {**seen, "hidden_states": hidden}

        return hook

    def _seen(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A layer's arguments, cut to the columns that are left."""
        if not self.cuts:
            return kwargs
        cut = {"attention_mask": self._cut("mask", kwargs.get("attention_mask"))}
        for name in ("position_ids", "position_embeddings"):
            if kwargs.get(name) is not None:
                cut[name] = self._cut(name, kwargs[name])
        return {**kwargs, **cut}

    def _look(self, index: int, hidden: Tensor, seen: dict[str, Any]) -> Tensor:
        """(B, R, L): what the prompt's last token, or each text token, pays all columns that are left."""
        assert self._rows is not None
        local, rows = self._local().to(hidden.device), self._rows.to(hidden.device)  # (B, L0), (B, R)
        rotary, mask = seen["position_embeddings"], seen["attention_mask"]
        return self.decoder.attention(index, hidden, local.gather(1, rows), rotary, mask)

    def _looking(self) -> Tensor:
        """(B, R), of the prompt's columns: the last token's, or the text's, the last repeated where there is less."""
        last = self.real.shape[1] - 1 - self.real.flip(1).long().argmax(1)  # (B,)
        if self.method.rows == "last":
            return last[:, None]
        rows = [torch.nonzero(row)[:, 0] for row in self._text()]
        longest = max(1, *map(len, rows))
        pairs = zip(rows, last, strict=True)
        return torch.stack([torch.cat([row, end.expand(longest - len(row))]) for row, end in pairs])

    def _text(self) -> Tensor:
        """(B, L0) bool: text behind the first picture of its row."""
        text = self.real != 0
        first = torch.full((len(text),), text.shape[1], device=text.device)
        for picture in self.pictures:
            for row in range(picture.row * self.times, (picture.row + 1) * self.times):
                text[row, picture.columns.to(text.device)] = False
                first[row] = torch.minimum(first[row], picture.columns[0].to(text.device))
        return text & (torch.arange(text.shape[1], device=text.device) > first[:, None])

    def _local(self) -> Tensor:
        """(B, L0): where each of the prompt's columns that are left stands now; 0 for others."""
        if not self.cuts:
            return torch.arange(self.real.shape[1], device=self.real.device).expand_as(self.real)
        index = self.cuts[-1].index
        places = torch.arange(index.shape[1], device=index.device).expand_as(index)
        local = torch.zeros(self.real.shape, dtype=torch.int64, device=index.device)
        rows = torch.arange(len(index), device=index.device)[:, None].expand_as(index)
        return local.index_put((rows[index >= 0], index[index >= 0]), places[index >= 0])

    def _drop(self, index: int, hidden: Tensor, shares: Tensor | None) -> Tensor:
        """Let every picture choose, and cut the hidden states (B, L, d) to what is left."""
        assert shares is not None
        assert self._embedded is not None
        assert self._rows is not None
        local, rows = self._local().to(hidden.device), self._rows
        stage, merged = self.stages.index(index), hidden
        drop = torch.zeros_like(self.real, dtype=torch.bool)
        for picture in self.pictures:
            row = picture.row * self.times  # of rows that are one prompt's (beams) the first speaks for all
            places = local[row, picture.token_columns.to(hidden.device)]
            behind = rows[row] > picture.columns[0].to(rows.device) if self.method.rows == "text" else rows[row] >= 0
            chosen = _own(rows[row], behind)
            selection = picture.choose(
                self.method, stage, len(self.stages), index,
                hidden=hidden[row, places], shares=shares[row][chosen.to(shares.device)][:, places],
                entered=self._embedded[row], text=rows[row][chosen],
            )  # fmt: skip
            stays = picture.stays.to(drop.device)
            if selection.merge is not None:
                merged = merged.clone() if merged is hidden else merged
                for copy in range(row, row + self.times):
                    merged[copy, places[selection.kept.to(places.device)]] = selection.take(hidden[copy, places])
            drop[row : row + self.times, picture.columns.to(drop.device)] = ~stays
        if not bool(drop.any()):
            return merged
        columns = remaining_columns(self.real, drop, side=self.side)
        self._use(LayerCut(layer=index, index=columns.index), hidden.dtype)
        now = local.gather(1, columns.index.to(local.device).clamp_min(0))  # (B, L)
        return merged.gather(1, now[..., None].expand(-1, -1, merged.shape[-1]))

    def _use(self, cut: LayerCut, dtype: torch.dtype) -> None:
        boolean = self.decoder.kernel == "sdpa"
        mask = remembered(lambda mask: cut.mask(mask, self.real, dtype, boolean=boolean))
        ids = remembered(  # of several axes in some families, (axes, B, L)
            lambda ids: cut.take(ids, -1) if ids.dim() == 2 else torch.stack([cut.take(axis, -1) for axis in ids])
        )
        angles = remembered(lambda rotary: tuple(cut.take(part, -2) for part in rotary))
        self.cuts.append(cut)
        self._cut = lambda kind, value: {"mask": mask, "position_ids": ids, "position_embeddings": angles}[kind](value)


def _own(rows: Tensor, behind: Tensor) -> Tensor:
    """Which of a row's (R,) text rows, each once, can see a picture; the last where none can."""
    chosen = torch.nonzero(behind & (torch.cat([rows.new_tensor([-1]), rows[:-1]]) != rows))[:, 0]
    return chosen if len(chosen) else torch.tensor([len(rows) - 1], device=rows.device)


@contextmanager
def layer_masks(decoder: LLMLayers, cache: Any, held: LayerColumns, real: Tensor | None) -> Iterator[None]:
    """While the language model runs on new tokens behind a pruned prefill: the later layers get masks of their own.

    Args:    cache: filled   real: the caller's (B, all columns) mask, None for ones
    Raises:  ValueError when the mask has another shape, or the cache was cropped into the prompt
    """
    past = int(cache.get_seq_length())
    if past < held.width:
        raise ValueError(f"the pruned cache was cropped into its prompt, to {past} of {held.width} columns.")
    held.require_whole(cache, past)
    if real is not None and (not isinstance(real, Tensor) or real.dim() != 2):
        raise ValueError("attention_mask must be (rows, columns) while tokens are dropped between layers.")
    boolean = decoder.kernel == "sdpa"
    made: dict[Any, Tensor | None] = {}

    def hook_of(index: int, cut: LayerCut) -> Callable[..., Any]:
        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            rows, new = hidden.shape[:2]
            cached, window = int(cache.layers[index].keys.shape[-2]), decoder.window(index)
            key = (cut.layer, cached, window)
            if key not in made:
                columns = held.columns(cut, rows, past + new, cached + new)
                made[key] = later_mask(columns, real, new, window, hidden.dtype, boolean=boolean)
            mask = made[key]
            return args, {**kwargs, "attention_mask": mask if mask is None else mask.to(hidden.device)}

        return hook

    cuts = [(index, layer, cut) for index, layer in enumerate(decoder.layers) if (cut := held.cut(index)) is not None]
    with hooked(*(ThreadHook(layer, "before", hook_of(index, cut)) for index, layer, cut in cuts)):
        yield
