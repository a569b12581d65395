"""Where a picture's questions look, view by view, in a model of any family: what `text_saliency.py` and `choosing.py`
find out for LLaVA-1.5's way.

A view has a budget of its own when it is pruned, so its tokens' shares add up to 1 by themselves: how a tile's tokens
compare among each other counts, not how much the tile is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.core.types import Selection
from salience.lab.data.scenes import Sample
from salience.lab.fit.attention_source import top_tokens
from salience.lab.fit.text_saliency import Look, joined_shares
from salience.lab.fit.view_samples import Viewed, answered, arguments, token_columns, view
from salience.vlm.families import Adapter
from salience.vlm.in_llm.llm_layers import LLMLayers, watch_layers


def require_attention(adapter: Adapter) -> None:
    """Raise a ValueError of one sentence where the language model's attention can't be read."""
    try:
        LLMLayers(adapter.language_model)
    except ValueError:
        kind = type(adapter.language_model).__name__
        raise ValueError(
            f"model: a scorer learns from attention between Llama-like layers, which {kind} does not have: use a "
            "training-free method, which `salience tradeoff` compares on this model too."
        ) from None


@torch.no_grad()
def viewed_saliency(adapter: Adapter, viewed: Viewed, looks: Sequence[Look]) -> list[list[Tensor]]:
    """For each look and each view (n_i,) float32 on the CPU, adding up to 1: how much its tokens are looked at."""
    shares, spans = [], []
    start = 0
    for batch in viewed.batches:
        columns = token_columns(adapter, viewed, batch["input_ids"])
        rows = _text_behind(batch, columns)
        for each in rows:
            spans.append((start, start + len(each) - 1))
            start += len(each)
        shares.append(_attention(adapter, viewed, batch, columns, rows))
    every = torch.cat(shares, dim=1)  # (layers, all questions' rows, n)
    sizes = [len(tokens) for tokens in viewed.encoded.views]
    return [[joined_shares(part, spans, look) for part in torch.split(every, sizes, dim=2)] for look in looks]


def _text_behind(batch: Any, columns: Tensor) -> list[Tensor]:
    """For each row the columns behind the picture's last token, to the end of the prompt."""
    mask = batch["attention_mask"].bool()
    places = torch.arange(mask.shape[1], device=mask.device)
    behind = mask & (places > columns.amax(1, keepdim=True))
    if not bool(behind.any(1).all()):
        raise ValueError("processor: every prompt must have text behind its picture, for attention from there.")
    return [torch.nonzero(row)[:, 0] for row in behind]


def _attention(
    adapter: Adapter, viewed: Viewed, batch: Any, columns: Tensor, rows: Sequence[Tensor]
) -> Tensor:  # fmt: skip
    """(layers, all rows one after the other, n): what the text pays the picture's tokens, all of them there."""
    longest = max(map(len, rows))
    looking = torch.stack([torch.cat([row, row[-1:].expand(longest - len(row))]) for row in rows])  # (B, R)
    layers: list[Tensor] = []

    def keep(layer: int, paid: Tensor) -> None:  # (B, R, T)
        at = columns.to(paid.device)[:, None].expand(-1, longest, -1)
        found = paid.gather(2, at).cpu()  # (B, R, n)
        layers.append(torch.cat([part[: len(row)] for part, row in zip(found, rows, strict=True)]))

    options = arguments(adapter, viewed, batch, viewed.every(), generating=False)
    with watch_layers(LLMLayers(adapter.language_model), looking, keep):
        adapter.model(**options, use_cache=False, logits_to_keep=1)
    return torch.stack(layers)


def choose_viewed_look(
    adapter: Adapter, processor: Any, groups: Sequence[Sequence[Sample]], looks: Sequence[Look],
    keeps: Sequence[float], *, tick: Callable[[int], object] | None = None,
) -> tuple[Look, list[dict[str, Any]]]:  # fmt: skip
    """As `choosing.choose_look`; looks that answer equally often are told apart by how likely the true answers are.

    Args:    groups: for each validation picture its samples   tick: called after each picture
    """
    right, likely = torch.zeros(2, len(looks), dtype=torch.float64).unbind()
    asked = len(keeps) * sum(map(len, groups))
    for group in groups:
        viewed = view(adapter, processor, group)
        for index, shares in enumerate(viewed_saliency(adapter, viewed, looks)):
            for keep in keeps:
                kept = [Selection(kept=top_tokens(part[None], keep)[0]) for part in shares]
                correct, log_probs = answered(adapter, processor.tokenizer, viewed, kept)
                right[index] += sum(correct)
                likely[index] += sum(log_probs)
        if tick is not None:
            tick(1)
    tried = [
        {**look.describe(), "accuracy": float(right[i]) / asked, "answer_log_prob": float(likely[i]) / asked}
        for i, look in enumerate(looks)
    ]
    best = max(range(len(looks)), key=lambda i: (tried[i]["accuracy"], tried[i]["answer_log_prob"], -i))
    return looks[best], tried


def views_and_shares(
    adapter: Adapter, processor: Any, groups: Sequence[Sequence[Sample]], look: Look | None,
    *, tick: Callable[[int], object] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """For each view of each picture its features (n_i, d), on the CPU, and its shares (n_i,); no shares without a look.

    Args:    tick: called after each picture
    """
    features: list[Tensor] = []
    shares: list[Tensor] = []
    for group in groups:
        viewed = view(adapter, processor, group, questions=look is not None)
        features += [tokens.cpu() for tokens in viewed.encoded.views]
        if look is not None:
            shares += viewed_saliency(adapter, viewed, [look])[0]
        if tick is not None:
            tick(1)
    return features, shares
