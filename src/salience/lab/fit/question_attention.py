"""Attention from a picture's questions to its visual tokens: of packed questions, or of each view for any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.core.types import Selection
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.packing import pack, run
from salience.lab.fit.attention_source import AttentionSource, join_questions
from salience.lab.fit.picture_views import PictureViews, arguments, token_columns
from salience.vlm.families import Adapter
from salience.vlm.in_llm.llm_layers import LLMLayers, watch_layers


@torch.no_grad()
def text_saliency(
    adapter: Adapter,
    pictures: EncodedPictures,
    sources: Sequence[AttentionSource],
    *,
    batch: int = 4,
    tick: Callable[[int], object] | None = None,
) -> Tensor:
    """Return (sources, P, n) float32: shares of the unpruned model's attention, mean over heads, adding up to 1.

    Args:    batch: pictures that run together   tick: called with the number of pictures done
    """
    total, n = len(pictures), pictures.features.shape[1]
    found = torch.zeros(len(sources), total, n)
    every = torch.arange(n)
    for start in range(0, total, batch):
        span = range(start, min(start + batch, total))
        packed = pack([pictures.prompts[i] for i in span], every.expand(len(span), n), n)
        layers: list[Tensor] = []

        def keep(layer: int, shares: Tensor, into: list[Tensor] = layers) -> None:
            into.append(shares.cpu())

        behind = torch.arange(packed.visual.stop, packed.ids.shape[1]).expand(len(span), -1)
        with watch_layers(LLMLayers(adapter.language_model), behind, keep, columns=packed.visual):
            run(adapter, packed, pictures.projected[span.start : span.stop])
        stacked = torch.stack(layers)  # (layers, B, rows, n)
        for row, picture in enumerate(span):
            spans = [(first - packed.visual.stop, last - packed.visual.stop) for first, last in packed.spans[row]]
            for index, source in enumerate(sources):
                found[index, picture] = join_questions(stacked[:, row], spans, source)
        if tick is not None:
            tick(len(span))
    return found


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
    """Return for each source and each view (n_i,) float32 on the CPU: shares of the attention, adding up to 1.

    The shares compare tokens inside one view, not views, because each view has a budget of its own when it is pruned.
    """
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
    """Return for each row the columns behind the picture's last token."""
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

    every = [Selection(kept=torch.arange(len(view))) for view in picture.encoded.views]
    options = arguments(adapter, picture, batch, every, generating=False)
    with watch_layers(LLMLayers(adapter.language_model), watched, keep):
        adapter.model(**options, use_cache=False, logits_to_keep=1)
    return torch.stack(layers)
