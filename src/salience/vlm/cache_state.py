"""The note that a pruned call leaves on its cache, to which later calls are fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salience.ops.tokens import Columns
from salience.vlm.call_args import CallArgs, generation_positions
from salience.vlm.families import Adapter, same_tower
from salience.vlm.pruned_inputs import PrunedInputs, pad_id
from salience.vlm.unpruned_prompt import UnprunedPrompt

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

_NAME = "_salience_state"  # an attribute of the cache, so that a copy of the cache takes it along


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheState:
    """The pruned prompt whose keys and values a cache holds.

    columns: for each cached column, its column in the caller's prompt.   prompt: (B, T), the caller's.
    mask: (B, L), of the cached columns.   moved: (B,), how far closing gaps moved the positions behind them.
    deltas: (B, 1), positions less tokens, for models whose positions have several axes; else None.
    first_position: of the first token, in forward.   beams: whether beam search has shuffled the rows.
    language_model: fingerprint of the language model that filled the cache; compare with `same_tower`.
    """

    columns: Columns
    prompt: Tensor
    mask: Tensor
    pad_id: int
    visual_ids: tuple[int, ...]
    moved: Tensor
    deltas: Tensor | None = None
    first_position: int = 0
    beams: bool = False
    language_model: dict[str, Any] | None = None

    @classmethod
    def on(cls, cache: Cache) -> CacheState | None:
        """The state noted on a cache; None if no pruned call filled it."""
        return getattr(cache, _NAME, None)

    @classmethod
    def of(
        cls, adapter: Adapter, pruned: PrunedInputs, prompt: Tensor, *, times: int = 1, beams: bool = False
    ) -> CacheState:
        """The state of a cache that has `times` rows for each row of the prompt."""
        deltas = pruned.deltas
        return cls(
            columns=pruned.columns.repeat(times),
            prompt=prompt.repeat_interleave(times, 0),
            mask=pruned.attention_mask.repeat_interleave(times, 0),
            pad_id=pad_id(adapter),
            visual_ids=tuple(adapter.token_ids.values()),
            moved=pruned.moved.repeat_interleave(times, 0),
            deltas=None if deltas is None else deltas.repeat_interleave(times, 0),
            first_position=adapter.first_position,
            beams=beams,
        )

    def leave_on(self, cache: Cache, language_model: dict[str, Any]) -> None:
        """Note this on a cache that this language model, given by its fingerprint, fills."""
        setattr(cache, _NAME, replace(self, language_model=language_model))

    @property
    def changed(self) -> bool:
        """Whether the cached columns differ from the caller's."""
        index = self.columns.index
        same = index.shape[1] == self.columns.width
        return not same or not torch.equal(index, torch.arange(index.shape[1], device=index.device).expand_as(index))

    def require_model(self, language_model: dict[str, Any]) -> None:
        """Raise a ValueError unless this language model, given by its fingerprint, filled the cache."""
        if self.language_model is not None and not same_tower(self.language_model, language_model):
            raise ValueError(
                "the pruned cache was filled by another model, whose keys and values mean nothing to this one: begin "
                "with an empty cache."
            )

    @property
    def shift(self) -> int:
        """Columns that the caller's sequence has more than the cache."""
        return self.columns.width - self.columns.index.shape[1]

    def forward_arguments(self, args: CallArgs, cached: int) -> dict[str, Any]:
        """A forward's arguments with new tokens after `cached` columns, its mask and positions adjusted.

        Raises:  ValueError when the new call does not fit the cache
        """
        ids = self._ids(args, cached)
        self._refuse_pictures(ids)
        start = cached + self.shift  # the caller's column of the first new token
        columns = self.columns.extend(start + ids.shape[1])
        mask = args.get("attention_mask")
        if mask is None:
            new = columns.index.shape[1] - self.mask.shape[1]
            mask = torch.cat([self.mask, self.mask.new_ones(len(ids), new)], dim=1)
        elif mask.dim() == 2 and mask.shape[1] == columns.width:
            mask = columns.take(mask, 0)
        else:
            raise ValueError(
                f"attention_mask must be {columns.width} wide, the whole prompt and all that followed, "
                f"not of shape {tuple(mask.shape)}."
            )
        positions = args.get("position_ids")
        if positions is None and self.deltas is not None:
            counted = generation_positions(mask)[:, -ids.shape[1] :] + self.deltas
            return {**args.values, "attention_mask": mask, "position_ids": counted.expand(3, -1, -1)}
        if positions is None:
            positions = self.first_position + torch.arange(start, columns.width, device=ids.device)[None]
        return {**args.values, "attention_mask": mask, "position_ids": positions - self.moved[:, None]}

    def generate_arguments(
        self, args: CallArgs, cached: int, model: PreTrainedModel
    ) -> tuple[UnprunedPrompt, dict[str, Any]]:
        """The prompt and arguments of a generate that continues after `cached` columns.

        Raises:  ValueError when the new call does not fit the cache
        """
        ids = self._ids(args, cached)
        mask = args.generation_mask(model)
        start = cached + self.shift
        if mask.dim() != 2 or mask.shape[1] <= start or mask.shape[1] < ids.shape[1]:
            raise ValueError(
                f"a turn after a pruned one takes the whole sequence, more than the {start} columns its cache stands "
                f"for, but attention_mask (input_ids, without one) is {mask.shape[-1]} wide."
            )
        columns = self.columns.extend(mask.shape[1])
        left, positions = columns.take(mask, 0), args.get("position_ids")
        if positions is not None or self.deltas is None:
            positions = columns.take(generation_positions(mask) if positions is None else positions, 0)
            positions = (positions - self.moved[:, None]).clamp_min(0)  # right for new columns, others are not read
        else:
            counted = generation_positions(left)[None]
            positions = torch.cat([counted, (counted + self.deltas).expand(3, -1, -1)])
        options = {**args.values, "attention_mask": left, "position_ids": positions}
        if ids.shape[1] < mask.shape[1]:  # only the new tokens were passed, which transformers allows as well
            self._refuse_pictures(ids)
            return UnprunedPrompt(ids, ids.shape[1]), options
        width = self.prompt.shape[1]
        if not torch.equal(ids[:, :width].to(self.prompt.device), self.prompt):
            raise ValueError("input_ids must begin with the very prompt whose pruned cache goes along.")
        self._refuse_pictures(ids[:, start:])
        options["input_ids"] = columns.take(ids, self.pad_id)
        return UnprunedPrompt(ids, columns.index.shape[1]), options

    def _ids(self, args: CallArgs, cached: int) -> Tensor:
        if args.get("input_ids") is None:
            raise ValueError("a call that continues from a pruned cache needs input_ids, not inputs_embeds.")
        if self.beams:
            raise ValueError(
                "a pruned beam search leaves its cache with the rows shuffled: no call can continue from it."
            )
        rows = args.ids.shape[0]
        if rows != self.prompt.shape[0]:
            raise ValueError(f"the pruned cache has {self.prompt.shape[0]} rows, but input_ids has {rows}.")
        if cached < self.mask.shape[1]:
            raise ValueError(
                f"the pruned cache was cropped into its prompt, to {cached} of {self.mask.shape[1]} columns."
            )
        return args.ids

    def _refuse_pictures(self, ids: Tensor) -> None:
        if bool(torch.isin(ids, torch.tensor(self.visual_ids, device=ids.device)).any()):
            raise ValueError("the new tokens hold image tokens, but pictures can be pruned in the first turn only.")
