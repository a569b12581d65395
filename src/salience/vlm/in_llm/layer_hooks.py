"""Hooks that drop tokens between the layers of the language model, for one call.

In the prefill a hook before a stage's layer shortens the hidden states, and hooks before all later layers shorten the
masks and positions that the model hands to each. So every layer caches the columns that it saw. In decoding the model
makes one mask for all layers, and hooks replace it for the later ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from salience.core.types import TokenContext, VisualGrid
from salience.ops.tokens import remaining_columns
from salience.vlm.in_llm.layer_columns import LayerColumns, LayerCut, decode_mask, whole_columns
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import InLLMPicture
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.thread_hooks import ThreadHook, hooked
from salience.vlm.token_choice import last_columns

if TYPE_CHECKING:
    from transformers import Cache

_KERNELS = ("sdpa", "eager")
_Changed = tuple[Any, dict[str, Any]]  # a module's arguments, positional and by name


class Prefill:
    """One prefill with a method's stages, inside `running()`; `layer_columns` says afterwards what each layer holds.

    Args:    pictures: of the prompt; each stage changes them   real: (B, L0), the prompt's mask
             side: on which rows of unequal length are padded
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
        self._embedded: Tensor = real  # both are set on entering the language model
        self._rows: Tensor = real
        self._deep: list[Tensor] = []
        self._shorten: dict[str, Callable[..., Any]] = {}

    @property
    def drops_nothing(self) -> bool:
        """Whether the budget is all tokens, so that no hooks are needed."""
        return all(picture.keeps_all for picture in self.pictures)

    @property
    def layer_columns(self) -> LayerColumns | None:
        """The columns that each layer holds; None where nothing was dropped."""
        return LayerColumns(width=self.real.shape[1], cuts=tuple(self.cuts)) if self.cuts else None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hooks while this thread runs the language model."""
        if self.drops_nothing:
            yield
            return
        first = self.stages[0] - (1 if self.method.looks == "last" else 0)
        hooks = [ThreadHook(self.decoder.language_model, "before", self._enter)]
        for index, layer in enumerate(self.decoder.layers):
            if index >= first:
                hooks.append(ThreadHook(layer, "before", self._before_layer(index)))
            hooks.append(ThreadHook(layer, "after", self._add_deepstack(index)))
        with hooked(*hooks):
            yield

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> _Changed:
        """Note the prompt's embeddings. Tokens that the model would add in several layers are added by our hooks."""
        embedded = kwargs["inputs_embeds"]  # (B, L0, d)
        self._start(self._prompts.repeat_interleave(embedded.shape[0] // self._prompts.shape[0], 0))
        if embedded.shape[1] != self.real.shape[1]:
            raise ValueError(
                f"method {self.method.name!r} needs the whole prompt of {self.real.shape[1]} columns at once, and "
                f"{embedded.shape[1]} came: leave prefill_chunk_size out, or what else cuts it up or adds to it."
            )
        self._embedded, self._rows = embedded, self._query_columns()
        deep = kwargs.get("deepstack_visual_embeds")
        if deep is None:
            return args, kwargs
        places = kwargs["visual_pos_masks"].to(embedded.device)
        for layer in deep:
            values = embedded.new_zeros(embedded.shape)
            values[places] = layer.to(embedded)
            self._deep.append(values)
        return args, {**kwargs, "deepstack_visual_embeds": None, "visual_pos_masks": None}

    def _add_deepstack(self, index: int) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            if index >= len(self._deep):
                return None
            added = self._deep[index]
            added = self.cuts[-1].take(added, 1) if self.cuts else added
            return output + added.to(output.device)

        return hook

    def _before_layer(self, index: int) -> Callable[..., _Changed]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> _Changed:
            hidden = args[0] if args else kwargs["hidden_states"]
            seen = self._shortened(kwargs)
            if index in self.stages:
                shares = self._shares if self.method.looks == "last" else self._attention(index, hidden, seen)
                assert shares is not None  # a stage's "last" layer runs before it
                hidden = self._drop(index, hidden, shares)
                seen = self._shortened(kwargs)
            if self.method.looks == "last" and index + 1 in self.stages:
                self._shares = self._attention(index, hidden, seen)
            if args:
                return (hidden, *args[1:]), seen
            return args, {**seen, "hidden_states": hidden}

        return hook

    def _shortened(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A layer's arguments, cut to the columns that are left."""
        seen = dict(kwargs)
        for name, shorten in self._shorten.items():
            if name == "attention_mask" or kwargs.get(name) is not None:
                seen[name] = shorten(kwargs.get(name))
        return seen

    def _attention(self, index: int, hidden: Tensor, seen: dict[str, Any]) -> Tensor:
        """(B, R, L): attention from the prompt's last token, or from each text token, to all columns that are left."""
        local, rows = self._local().to(hidden.device), self._rows.to(hidden.device)  # (B, L0), (B, R)
        rotary, mask = seen["position_embeddings"], seen["attention_mask"]
        return self.decoder.attention(index, hidden, local.gather(1, rows), rotary, mask)

    def _query_columns(self) -> Tensor:
        """(B, R): the prompt's columns whose queries count, its last or its text; a row with less repeats its last."""
        last = last_columns(self.real)
        if self.method.rows == "last":
            return last[:, None]
        rows = [torch.nonzero(row)[:, 0] for row in self._text()]
        longest = max(1, *map(len, rows))
        pairs = zip(rows, last, strict=True)
        return torch.stack([torch.cat([row, end.expand(longest - len(row))]) for row, end in pairs])

    def _text(self) -> Tensor:
        """(B, L0) bool: text after the first picture of its row."""
        text = self.real != 0
        first = torch.full((len(text),), text.shape[1], device=text.device)
        for picture in self.pictures:
            for row in range(picture.row * self.times, (picture.row + 1) * self.times):
                text[row, picture.columns.to(text.device)] = False
                first[row] = torch.minimum(first[row], picture.columns[0].to(text.device))
        return text & (torch.arange(text.shape[1], device=text.device) > first[:, None])

    def _local(self) -> Tensor:
        """(B, L0): the present place of each of the prompt's columns that are left; 0 for others."""
        if not self.cuts:
            return torch.arange(self.real.shape[1], device=self.real.device).expand_as(self.real)
        index, width = self.cuts[-1].index, self.real.shape[1]
        places = torch.arange(index.shape[1], device=index.device).expand_as(index)
        whole = index.new_zeros(len(index), width + 1)  # padding goes into a last column, which is cut off
        return whole.scatter(1, index.masked_fill(index < 0, width), places)[:, :width]

    def _drop(self, index: int, hidden: Tensor, shares: Tensor) -> Tensor:
        """Let the method choose in every picture, and cut the hidden states (B, L, d) to what is left."""
        local, rows = self._local().to(hidden.device), self._rows
        stage, merged = self.stages.index(index), hidden
        drop = torch.zeros_like(self.real, dtype=torch.bool)
        for picture in self.pictures:
            row = picture.row * self.times  # of rows that are one prompt's (beams) the first counts for all
            places = local[row, picture.token_columns.to(hidden.device)]
            behind = rows[row] > picture.columns[0].to(rows.device) if self.method.rows == "text" else rows[row] >= 0
            chosen, entered = _seeing(rows[row], behind), self._embedded[row]
            context = TokenContext(
                features=hidden[row, places],
                grid=VisualGrid(rows=1, columns=len(places)),
                projected=entered[picture.entered_columns.to(entered.device)],
                text=entered[rows[row][chosen].to(entered.device)],
                text_attention=shares[row][chosen.to(shares.device)][:, places],
            )
            selection = picture.choose(self.method, context, layer=index, stage=stage, stages=len(self.stages))
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
        """Let the layers from here on see the columns of `cut`."""
        boolean = self.decoder.kernel == "sdpa"

        def positions(ids: Tensor) -> Tensor:  # of several axes in some families, (axes, B, L)
            return cut.take(ids, -1) if ids.dim() == 2 else torch.stack([cut.take(axis, -1) for axis in ids])

        self.cuts.append(cut)
        self._shorten = {  # cached, as all layers are given the same mask and rotary angles
            "attention_mask": functools.cache(lambda mask: cut.mask(mask, self.real, dtype, boolean=boolean)),
            "position_ids": functools.cache(positions),
            "position_embeddings": functools.cache(lambda rotary: tuple(cut.take(part, -2) for part in rotary)),
        }


def _seeing(rows: Tensor, behind: Tensor) -> Tensor:
    """The places in a row's (R,) text columns, each once, that can see a picture; the last where none can."""
    chosen = torch.nonzero(behind & (torch.cat([rows.new_tensor([-1]), rows[:-1]]) != rows))[:, 0]
    return chosen if len(chosen) else torch.tensor([len(rows) - 1], device=rows.device)


@contextmanager
def layer_masks(decoder: LLMLayers, cache: Cache, columns: LayerColumns, real: Tensor | None) -> Iterator[None]:
    """Give the later layers their own masks while the language model runs on new tokens after a pruned prefill.

    Args:    cache: the filled one   real: the caller's (B, all columns) mask, None for ones
    Raises:  ValueError when the mask has another shape, or the cache was cropped into the prompt
    """
    past = int(cache.get_seq_length())
    if past < columns.width:
        raise ValueError(f"the pruned cache was cropped into its prompt, to {past} of {columns.width} columns.")
    columns.require_whole(cache, past)
    if real is not None and (not isinstance(real, Tensor) or real.dim() != 2):
        raise ValueError("attention_mask must be (rows, columns) while tokens are dropped between layers.")
    boolean = decoder.kernel == "sdpa"
    made: dict[tuple[int, int, int | None], Tensor | None] = {}

    def hook_of(index: int, cut: LayerCut) -> Callable[..., _Changed]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> _Changed:
            hidden = args[0] if args else kwargs["hidden_states"]
            rows, new = hidden.shape[:2]
            cached, window = int(cache.layers[index].keys.shape[-2]), decoder.window(index)
            key = (cut.layer, cached, window)
            if key not in made:
                attended = whole_columns(cut.index, rows, columns.width, past + new)[:, -(cached + new) :]
                made[key] = decode_mask(attended, real, new, window, hidden.dtype, boolean=boolean)
            mask = made[key]
            return args, {**kwargs, "attention_mask": mask if mask is None else mask.to(hidden.device)}

        return hook

    cuts = [(i, layer, cut) for i, layer in enumerate(decoder.layers) if (cut := columns.cut(i)) is not None]
    with hooked(*(ThreadHook(layer, "before", hook_of(index, cut)) for index, layer, cut in cuts)):
        yield
