"""A prompt without the dropped tokens, as the language model reads it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from salience.core.types import Selection
from salience.ops.axes import kept_axes
from salience.ops.tokens import Columns, padding_side, remaining_columns
from salience.vlm.families import Adapter, EncodedViews

Positions = Literal["auto", "original", "compact"]

# Arguments along the sequence besides ids, mask and positions -> their value for new padding.
_ALONG = {"labels": -100, "token_type_ids": 0, "mm_token_type_ids": 0}


@dataclass(frozen=True, kw_only=True, eq=False)
class PrunedInputs:
    """A prompt without the dropped tokens, as the language model reads it.

    input_ids, attention_mask: (B, L).   position_ids: (B, L), or (axes, B, L).   projected: for each view (k, d_llm).
    moved: (B,), how far closing gaps moves the positions behind them.   deltas: (B, 1), positions less tokens, where
    positions have several axes.   deepstack: for each layer that adds visual tokens, each view's (k, d_llm).
    kinds: "image" or "video", for each view.
    `adapter.embed(input_ids, projected)` are the embeddings, (B, L, d_llm).
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    projected: tuple[Tensor, ...]
    columns: Columns
    moved: Tensor
    deltas: Tensor | None = None
    deepstack: tuple[tuple[Tensor, ...], ...] = ()
    kinds: tuple[str, ...] = ()


def project_kept(adapter: Adapter, encoded: EncodedViews, selections: Sequence[Selection]) -> tuple[Tensor, ...]:
    """For each view the projected tokens that stay in the prompt, (k, d_llm), newlines included.

    Of views of one size only the kept rows are projected, all together; of other views the model projects all, and the
    kept rows are taken. If a method merges tokens, their features are merged before they are projected.
    """
    if encoded.stacked is None:
        tokens = [_projected_rows(encoded, i, selection) for i, selection in enumerate(selections)]
        return tuple(encoded.fill(i, s.kept, rows) for i, (s, rows) in enumerate(zip(selections, tokens, strict=True)))
    n = encoded.features.shape[1]
    counts = [selection.kept.numel() for selection in selections]
    if all(count == n for count in counts):  # the same tensor as the model projects, hence the same bits
        return tuple(encoded.projected())
    if any(selection.merge is not None for selection in selections):
        rows = [selection.take(view) for selection, view in zip(selections, encoded.features, strict=True)]
        return torch.split(adapter.project(torch.cat(rows)), counts)
    places = torch.cat([selection.kept + i * n for i, selection in enumerate(selections)])
    image, token = (x.to(encoded.features.device) for x in (places // n, places % n))
    projected = adapter.project(encoded.features[image, token])  # (sum of k, d_llm)
    return torch.split(projected, counts)


def _projected_rows(encoded: EncodedViews, view: int, selection: Selection) -> Tensor:
    """(k, d_llm): the tokens of one view that stay, without newlines."""
    if selection.merge is not None:
        return encoded.project(selection.take(encoded.views[view]))
    rows = encoded.projected()[view]
    return rows if selection.kept.numel() == rows.shape[0] else selection.take(rows)


def pruned_inputs(
    adapter: Adapter,
    encoded: EncodedViews,
    selections: Sequence[Selection],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    positions: Positions = "auto",
    side: str | None = None,
) -> PrunedInputs:
    """The prompt that `prune` gives the model, for callers that run the stages one by one.

    Args:    input_ids, attention_mask: (B, T)   position_ids: (B, T), (1, T) or (axes, B, T); 0, 1, ... T - 1 if None
             side: where rows of unequal length are padded, "left" or "right"; None: where there is padding already
    Raises:  ValueError when the prompt's image tokens are not those of the pictures
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if position_ids is None:
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    drop = torch.zeros_like(input_ids, dtype=torch.bool)
    for kind in adapter.token_ids:
        slot = slots(adapter, encoded, input_ids, kind)  # (B, T); the j-th True is the j-th place of the kind's views
        chosen = [encoded.places(i, s.kept) for i, s in enumerate(selections) if encoded.kinds[i] == kind]
        if chosen:
            drop = drop.masked_scatter(slot, ~torch.cat(chosen).to(slot.device))
    columns = remaining_columns(mask, drop, side=side or padding_side(mask))
    ids, left, compact = columns.take(input_ids, pad_id(adapter)), columns.take(mask, 0), positions == "compact"
    deltas = None
    if position_ids.dim() == 2:
        kept = columns.positions(position_ids, compact=compact)
        moved = columns.dropped if compact else torch.zeros_like(columns.dropped)
    else:
        visual = torch.isin(ids, torch.tensor(list(adapter.token_ids.values()), device=ids.device))
        kept, ends, moved = kept_axes(position_ids, columns, left, visual, full_mask=mask, compact=compact)
        deltas = (ends - left.sum(1))[:, None]
    return PrunedInputs(
        input_ids=ids,
        attention_mask=left,
        position_ids=kept,
        projected=project_kept(adapter, encoded, selections),
        columns=columns,
        moved=moved,
        deltas=deltas,
        kinds=tuple(encoded.kinds),
        deepstack=tuple(
            tuple(s.take(view) for view, s in zip(layer, selections, strict=True)) for layer in encoded.deepstack
        ),
    )


def model_arguments(adapter: Adapter, pruned: PrunedInputs, options: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments: the pruned prompt and `options`, those along the sequence cut.

    They always include the mask: without one, positions with gaps are read as several packed sequences.
    """
    cut = {
        name: pruned.columns.take(options[name], fill) for name, fill in _ALONG.items() if options.get(name) is not None
    }
    projected, kinds = pruned.projected, pruned.kinds
    if adapter.joins_rows:
        counts = (pruned.input_ids == adapter.image_token_id).sum(1).tolist()
        projected = tuple(row for row in torch.split(torch.cat(projected), counts) if len(row))
        kinds = ("image",) * len(projected)
    return {
        **options,
        **cut,
        "input_ids": pruned.input_ids,
        "attention_mask": pruned.attention_mask,
        "position_ids": pruned.position_ids,
        "mm_encoder_outputs": adapter.encoder_outputs(projected, pruned.deepstack, kinds),
    }


def slots(adapter: Adapter, encoded: EncodedViews, input_ids: Tensor, kind: str) -> Tensor:
    """(B, T) bool: the places in the prompt of tokens of a kind, "image" or "video".

    Raises:  ValueError when their numbers do not fit the pictures or videos, row by row
    """
    slot: Tensor = input_ids == adapter.token_ids[kind]
    sizes = [size for size, its in zip(encoded.sizes, encoded.kinds, strict=True) if its == kind]
    counts = slot.sum(1).tolist()
    ends = set(itertools.accumulate(sizes, initial=0))
    if sum(counts) == sum(sizes) and all(end in ends for end in itertools.accumulate(counts)):
        return slot
    if len(set(sizes)) == 1:
        wanted = f"{sizes[0]} {kind} tokens for each of its {len(sizes)} pictures"
    else:
        wanted = f"{', '.join(map(str, sizes)) or 'no'} {kind} tokens for its pictures, one after the other"
    raise ValueError(f"the prompt must hold {wanted}, but its rows hold {counts}.")


def pad_id(adapter: Adapter) -> int:
    """An id for new padding. It is masked, so any will do but that of a placeholder."""
    config = adapter.model.config
    visual = adapter.token_ids.values()
    for source in (config, config.get_text_config()):
        pad = getattr(source, "pad_token_id", None)
        if isinstance(pad, int) and pad >= 0 and pad not in visual:
            return pad
    return next(other for other in range(len(visual) + 1) if other not in visual)
