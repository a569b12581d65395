"""View saliency: attention from a picture's questions to its visual tokens, for any family.

Each view has a budget of its own when it is pruned. So the shares of each view's tokens add up to 1: they compare
tokens inside one tile, not tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.lab.fit.attention_source import AttentionSource, join_questions
from salience.lab.fit.picture_views import PictureViews, arguments, token_columns
from salience.vlm.families import Adapter
from salience.vlm.in_llm.llm_layers import LLMLayers, watch_layers


def require_attention(adapter: Adapter) -> None:
    """Raise ValueError, one sentence, where the language model's attention can't be read."""
    try:
        LLMLayers(adapter.language_model)
    except ValueError:
        kind = type(adapter.language_model).__name__
        raise ValueError(
            f"model: a scorer learns from attention between Llama-like layers, which {kind} does not have: use a "
            "training-free method, which `salience tradeoff` compares on this model too."
        ) from None


@torch.no_grad()
def view_saliency(adapter: Adapter, picture: PictureViews, sources: Sequence[AttentionSource]) -> list[list[Tensor]]:
    """Return for each source and each view (n_i,) float32 on the CPU: shares of the attention, adding up to 1."""
    shares, spans = [], []
    start = 0
    for batch in picture.batches:
        columns = token_columns(adapter, picture, batch["input_ids"])
        rows = _text_after(batch, columns)
        for each in rows:
            spans.append((start, start + len(each) - 1))
            start += len(each)
        shares.append(_attention(adapter, picture, batch, columns, rows))
    every = torch.cat(shares, dim=1)  # (layers, rows of all questions, n)
    sizes = [len(tokens) for tokens in picture.encoded.views]
    return [[join_questions(part, spans, source) for part in torch.split(every, sizes, dim=2)] for source in sources]


def _text_after(batch: Mapping[str, Any], columns: Tensor) -> list[Tensor]:
    """Return for each row the columns from behind the picture's last token to the end of the prompt."""
    mask = batch["attention_mask"].bool()
    places = torch.arange(mask.shape[1], device=mask.device)
    behind = mask & (places > columns.amax(1, keepdim=True))
    if not bool(behind.any(1).all()):
        raise ValueError("processor: every prompt must have text behind its picture, for attention from there.")
    return [torch.nonzero(row)[:, 0] for row in behind]


def _attention(
    adapter: Adapter, picture: PictureViews, batch: Mapping[str, Any], columns: Tensor, rows: Sequence[Tensor]
) -> Tensor:
    """Return (layers, rows one after the other, n): attention from the text to the picture's tokens, unpruned."""
    longest = max(map(len, rows))
    watched = torch.stack([torch.cat([row, row[-1:].expand(longest - len(row))]) for row in rows])  # (B, R)
    layers: list[Tensor] = []

    def keep(layer: int, attention: Tensor) -> None:  # (B, R, T)
        at = columns.to(attention.device)[:, None].expand(-1, longest, -1)
        found = attention.gather(2, at).cpu()  # (B, R, n)
        layers.append(torch.cat([part[: len(row)] for part, row in zip(found, rows, strict=True)]))

    options = arguments(adapter, picture, batch, picture.every(), generating=False)
    with watch_layers(LLMLayers(adapter.language_model), watched, keep):
        adapter.model(**options, use_cache=False, logits_to_keep=1)
    return torch.stack(layers)
