"""What a pruned call leaves on the cache it filled, so that the next turn fits it or is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from salience.ops.tokens import Columns
from salience.vlm.call_args import generation_mask, generation_positions
from salience.vlm.families import same_tower
from salience.vlm.unpruned_prompt import UnprunedPrompt

_NAME = "_salience_memory"  # an attribute of the cache, so that a copy of the cache takes it along


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheState:
    """The pruned prompt in a cache.

    columns: which column of the caller's prompt each cached one is.   prompt: (B, T), whole.
    mask: (B, L), of the cached columns.   moved: (B,), how far closed gaps moved what follows.
    deltas: (B, 1), positions less tokens, of models whose positions have several axes, else None.
    first_position: what forward gives the first token.   beams: whether beam search shuffled the rows.
    language_model: fingerprint of the one whose keys and values it holds; see `same_tower`.
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
    def of(cls, cache: Any) -> CacheState | None:
        """The memory on a cache, None if no pruned call filled it."""
        return getattr(cache, _NAME, None)

    def leave_on(self, cache: Any, *, times: int = 1, beams: bool = False) -> None:
        """Note this on `cache`, whose rows are the prompt's, each `times` times."""
        prompt, mask, moved = (x.repeat_interleave(times, 0) for x in (self.prompt, self.mask, self.moved))
        deltas = None if self.deltas is None else self.deltas.repeat_interleave(times, 0)
        columns = self.columns.repeat(times)
        copy = replace(self, columns=columns, prompt=prompt, mask=mask, moved=moved, deltas=deltas, beams=beams)
        setattr(cache, _NAME, copy)

    @property
    def changed(self) -> bool:
        """Whether the cached columns are not the caller's own, one by one."""
        index = self.columns.index
        same = index.shape[1] == self.columns.width
        return not same or not torch.equal(index, torch.arange(index.shape[1], device=index.device).expand_as(index))

    def require_model(self, language_model: dict[str, Any]) -> None:
        """Raise a ValueError unless the cache was filled by this language model, named by its fingerprint."""
        if self.language_model is not None and not same_tower(self.language_model, language_model):
            raise ValueError(
                "the pruned cache was filled by another model, whose keys and values mean nothing to this one: begin "
                "with an empty cache."
            )

    @property
    def shift(self) -> int:
        """How much further along a token is in the caller's sequence than in the cache."""
        return self.columns.width - self.columns.index.shape[1]

    def forward_arguments(self, given: dict[str, Any], cached: int) -> dict[str, Any]:
        """A forward's arguments with new tokens after `cached` columns, its mask and positions made to fit.

        Raises:  ValueError when the new call does not fit the cache
        """
        ids = self._ids(given, cached)
        self._refuse_pictures(ids)
        start = cached + self.shift  # where, for the caller, the new tokens begin
        columns = self.columns.extend(start + ids.shape[1])
        mask = given.get("attention_mask")
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
        positions = given.get("position_ids")
        if positions is None and self.deltas is not None:
            counted = generation_positions(mask)[:, -ids.shape[1] :] + self.deltas
            return {**given, "attention_mask": mask, "position_ids": counted.expand(3, -1, -1)}
        if positions is None:
            positions = self.first_position + torch.arange(start, columns.width, device=ids.device)[None]
        return {**given, "attention_mask": mask, "position_ids": positions - self.moved[:, None]}

    def generate_arguments(
        self, given: dict[str, Any], cached: int, model: Any
    ) -> tuple[UnprunedPrompt, dict[str, Any]]:
        """The prompt and arguments of a generate that goes on after `cached` columns.

        Raises:  ValueError when the new call does not fit the cache
        """
        ids = self._ids(given, cached)
        mask = generation_mask(given, ids, model)
        start = cached + self.shift
        if mask.dim() != 2 or mask.shape[1] <= start or mask.shape[1] < ids.shape[1]:
            raise ValueError(
                f"a turn after a pruned one takes the whole sequence, more than the {start} columns its cache stands "
                f"for, but attention_mask (input_ids, without one) is {mask.shape[-1]} wide."
            )
        columns = self.columns.extend(mask.shape[1])
        left, positions = columns.take(mask, 0), given.get("position_ids")
        if positions is not None or self.deltas is None:
            positions = columns.take(generation_positions(mask) if positions is None else positions, 0)
            positions = (positions - self.moved[:, None]).clamp_min(0)  # right for the new columns, others are not read
        else:
            counted = generation_positions(left)[None]
            positions = torch.cat([counted, (counted + self.deltas).expand(3, -1, -1)])
        options = {**given, "attention_mask": left, "position_ids": positions}
        if ids.shape[1] < mask.shape[1]:  # only the new tokens were passed, which transformers allows as well
            self._refuse_pictures(ids)
            return UnprunedPrompt(ids, ids.shape[1]), options
        width = self.prompt.shape[1]
        if not torch.equal(ids[:, :width].to(self.prompt.device), self.prompt):
            raise ValueError("input_ids must begin with the very prompt whose pruned cache goes along.")
        self._refuse_pictures(ids[:, start:])
        options["input_ids"] = columns.take(ids, self.pad_id)
        return UnprunedPrompt(ids, columns.index.shape[1]), options

    def _ids(self, given: dict[str, Any], cached: int) -> Tensor:
        ids: Tensor | None = given.get("input_ids")
        if ids is None:
            raise ValueError("a call that goes on from a pruned cache needs input_ids, not inputs_embeds.")
        if self.beams:
            raise ValueError("a pruned beam search leaves its cache with the rows shuffled: it cannot be gone on from.")
        if ids.shape[0] != self.prompt.shape[0]:
            raise ValueError(f"the pruned cache has {self.prompt.shape[0]} rows, but input_ids has {ids.shape[0]}.")
        if cached < self.mask.shape[1]:
            raise ValueError(
                f"the pruned cache was cropped into its prompt, to {cached} of {self.mask.shape[1]} columns."
            )
        return ids

    def _refuse_pictures(self, ids: Tensor) -> None:
        if bool(torch.isin(ids, torch.tensor(self.visual_ids, device=ids.device)).any()):
            raise ValueError("the new tokens hold image tokens, but pictures can be pruned in the first turn only.")
