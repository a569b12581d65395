"""A prompt without the dropped tokens: exactly what the language model gets to see, for `prune` and for studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from salience.core.types import Selection
from salience.families import Adapter, Encoded
from salience.ops.tokens import Columns, padding_side, remaining_columns

Positions = Literal["auto", "original", "compact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PrunedInputs:
    """A prompt without the dropped tokens: what the language model gets to see.

    input_ids, attention_mask, position_ids: (B, L).   projected: for each picture (k, d_llm).
    `adapter.embed(input_ids, projected)` are the embeddings, (B, L, d_llm).
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    projected: tuple[Tensor, ...]
    columns: Columns


def project_kept(adapter: Adapter, encoded: Encoded, selections: Sequence[Selection]) -> tuple[Tensor, ...]:
    """For each picture (k, d_llm): the projector run on the kept rows alone, all pictures at once."""
    n = encoded.features.shape[1]
    counts = [selection.kept.numel() for selection in selections]
    if all(count == n for count in counts):  # the very tensor the model itself would project: the same bits come out
        return adapter.project(encoded.features).unbind()
    rows = torch.cat([selection.kept + i * n for i, selection in enumerate(selections)])
    image, token = (x.to(encoded.features.device) for x in (rows // n, rows % n))
    projected = adapter.project(encoded.features[image, token])  # (sum of k, d_llm)
    return torch.split(projected, counts)


def pruned_inputs(
    adapter: Adapter,
    encoded: Encoded,
    selections: Sequence[Selection],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    positions: Positions = "auto",
    side: str | None = None,
) -> PrunedInputs:
    """Exactly what `prune` gives the model, for callers that run its stages one by one.

    Args:    input_ids, attention_mask: (B, T)   position_ids: (B, T) or (1, T), 0, 1, ... T - 1 if None
             side: where rows of unequal length are padded, "left" or "right"; None: where there is padding already
    Raises:  ValueError when the prompt's image tokens are not those of the pictures
    """
    slot = input_ids == adapter.image_token_id  # (B, T); the j-th True belongs to the j-th visual token
    _check_slots(slot, *encoded.features.shape[:2])
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if position_ids is None:
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    dropped = torch.ones(encoded.features.shape[:2], dtype=torch.bool)
    for row, selection in zip(dropped, selections, strict=True):
        row[selection.kept] = False
    drop = torch.zeros_like(slot).masked_scatter(slot, dropped.reshape(-1).to(slot.device))
    columns = remaining_columns(mask, drop, side=side or padding_side(mask))
    return PrunedInputs(
        input_ids=columns.take(input_ids, pad_id(adapter)),
        attention_mask=columns.take(mask, 0),
        position_ids=columns.positions(position_ids, compact=positions == "compact"),
        projected=project_kept(adapter, encoded, selections),
        columns=columns,
    )


def _check_slots(slot: Tensor, images: int, n: int) -> None:
    counts = slot.sum(1).tolist()
    if sum(counts) != images * n or any(count % n for count in counts):
        raise ValueError(
            f"the prompt must hold {n} image tokens for each of its {images} pictures, but its rows hold {counts}."
        )


def pad_id(adapter: Adapter) -> int:
    """An id for new padding: it is masked, so any but the image token's will do."""
    config = adapter.model.config
    for source in (config, config.get_text_config()):
        pad = getattr(source, "pad_token_id", None)
        if isinstance(pad, int) and pad >= 0 and pad != adapter.image_token_id:
            return pad
    return 0 if adapter.image_token_id != 0 else 1
