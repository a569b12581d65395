"""`prune`: joins a method and a model family, on an unmodified transformers model, for as long as it is asked to."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from salience.core.types import Selection, VisualGrid
from salience.families import Adapter, Encoded, adapter_for, same_tower
from salience.families.whole_prompt import WholePrompt, effective
from salience.ops.tokens import Columns, padding_side, remaining_columns
from salience.pruning.base import Method
from salience.pruning.budget import Budget
from salience.pruning.resolve import resolve_method
from salience.pruning.scorer import Scorer

_log = logging.getLogger("salience")
_MARK = "_salience_pruned"  # on our wrappers, and on the caches that pruned calls fill

Positions = Literal["auto", "original", "compact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTrace:
    """One picture of the last call: grid, scores (n,) float32 or None, kept (k,) int64 in raster order, on the CPU."""

    grid: VisualGrid
    scores: Tensor | None
    kept: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The last call that carried pictures.

    images: in batch order.   columns: for each row of the prompt, (L,) int64 on the CPU, the original column of each
    remaining one, -1 for padding that pruning added.
    """

    images: tuple[ImageTrace, ...] = ()
    columns: tuple[Tensor, ...] = ()


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
    images, n = encoded.features.shape[:2]
    counts = [selection.kept.numel() for selection in selections]
    if all(count == n for count in counts):  # the very tensor the model itself would project: the same bits come out
        return tuple(adapter.project(encoded.features))
    rows = torch.cat([selection.kept + i * n for i, selection in enumerate(selections)])
    image, token = (x.to(encoded.features.device) for x in (rows // n, rows % n))
    return adapter.project(encoded.features[image, token]).split(counts)  # (sum of k, d) -> k of each


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
        input_ids=columns.take(input_ids, _pad_id(adapter)),
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


def _pad_id(adapter: Adapter) -> int:
    """An id for new padding: it is masked, so any but the image token's will do."""
    config = adapter.model.config
    for source in (config, config.get_text_config()):  # type: ignore[operator, union-attr]
        pad = getattr(source, "pad_token_id", None)
        if isinstance(pad, int) and pad >= 0 and pad != adapter.image_token_id:
            return pad
    return 0 if adapter.image_token_id != 0 else 1
