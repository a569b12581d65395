"""Families without a file of their own whose positions have several axes, counted by the model's `get_rope_index`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from salience.vlm.families.base import Adapter
from salience.vlm.families.fallback import FallbackAdapter


class AxesFallbackAdapter(FallbackAdapter):
    """A fallback for models of which the tests found that `get_rope_index` says all there is to know of positions."""

    several_axes = True

    @property
    def no_compact(self) -> str:
        return "its pictures' positions lie on a canvas whose gaps nobody defined how to close"

    def position_ids(self, given: Mapping[str, Any], mask: Tensor, *, generating: bool) -> Tensor:
        """(3, B, T) in forward, (4, B, T) in generate, the first the text's: of the whole prompt, grids and all."""
        text = Adapter.position_ids(self, given, mask, generating=True)
        base = self.model.base_model
        names = set(inspect.signature(base.get_rope_index).parameters) - {"attention_mask", "kwargs"}
        if "mm_token_type_ids" in names and given.get("mm_token_type_ids") is None:
            if not generating:
                raise ValueError("mm_token_type_ids is missing: pass it along, as the processor gives it.")
            return text.expand(4, -1, -1)  # generate then counts all tokens as text
        known = {name: given[name] for name in names if given.get(name) is not None}
        axes, _ = base.get_rope_index(**known, attention_mask=mask)
        return torch.cat([text[None], axes]) if generating else axes

    def settle(self, deltas: Tensor | None) -> None:
        if deltas is not None:
            self.model.base_model.rope_deltas = deltas
