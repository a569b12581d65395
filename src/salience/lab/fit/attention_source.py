"""Attention sources: the attention values that a scorer can learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from salience.vlm.families import Adapter
from salience.vlm.methods.base import require_finite
from salience.vlm.methods.budget import Budget

ROWS = ("answer", "question")
JOINS = ("mean", "turns")
_MOST_LAYERS = 8


@dataclass(frozen=True, kw_only=True)
class AttentionSource:
    """Attention of the unpruned model over a picture's tokens, joined over the picture's questions.

    layer: of the language model, from 0; None for the mean over all layers
    rows: "answer" (the prompt's last token, from which the answer is read) or "question" (mean over all its tokens)
    join: "mean" averages the questions' shares, each raised to `power` and normalised again. "turns" ranks each
        question's tokens by attention; a token whose best rank is r = 0, 1, ... weighs (1 + r) ** -power. So the few
        best tokens of every question come before the many good tokens of any one.
    """

    layer: int | None = None
    rows: str = "question"
    power: float = 1.0
    join: str = "mean"

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ValueError(f"rows must be one of {', '.join(ROWS)}, not {self.rows!r}.")
        if self.join not in JOINS:
            raise ValueError(f"join must be one of {', '.join(JOINS)}, not {self.join!r}.")
        if not self.power > 0:
            raise ValueError(f"power must be above 0, not {self.power!r}.")


#: Source of the `saliency_mass` column.
REFERENCE = AttentionSource()


def candidate_sources(adapter: Adapter) -> list[AttentionSource]:
    """Return the mean over layers and single layers (of a deep model eight, evenly spaced), each with both `rows`.

    All join by turns. A mean fills a small budget with many tokens of the few items that get the most attention, and
    a scorer that learns it loses the other items.
    """
    count = len(adapter.language_model.layers)  # type: ignore[arg-type]
    step = max(1, -(-count // _MOST_LAYERS))
    layers: list[int | None] = [None, *range(step - 1, count, step)]
    return [AttentionSource(layer=layer, rows=rows, power=2.0, join="turns") for layer in layers for rows in ROWS]


def best_source(
    sources: Sequence[AttentionSource], measured: Sequence[Mapping[str, float]]
) -> tuple[AttentionSource, list[dict[str, Any]]]:
    """Return the source with the highest measures, the first measure first, and all sources with theirs, as JSON.

    measured: for each source its measures by name, such as {"accuracy": 0.6}; the earlier source wins a tie
    """
    best = max(range(len(sources)), key=lambda index: (*measured[index].values(), -index))
    tried = [{**asdict(source), **found} for source, found in zip(sources, measured, strict=True)]
    return sources[best], tried


def top_tokens(scores: Tensor, keep: float) -> Tensor:
    """Return the tokens (k,) of scores (n,) that a keep ratio leaves, in rising order; ties go to the earlier token."""
    order = scores.sort(descending=True, stable=True).indices[: Budget(keep=keep).count(len(scores))]
    return torch.sort(order).values


def join_questions(shares: Tensor, spans: Sequence[tuple[int, int]], source: AttentionSource) -> Tensor:
    """Return each token's share (n,) of the attention, adding up to 1; equal shares where there is no attention.

    Each question is normalised before the mean. Otherwise the questions with the most attention would decide, and
    small items that few questions ask about would be lost.

    Args:    shares: attention (layers, rows, n)   spans: first and last row of each question
    """
    chosen = shares.mean(0) if source.layer is None else shares[source.layer]  # (rows, n)
    first = [last if source.rows == "answer" else first for first, last in spans]
    each = torch.stack([chosen[a : last + 1].mean(0) for a, (_, last) in zip(first, spans, strict=True)])
    require_finite(each, "saliency", "attention values to learn from")
    each = each[each.sum(-1) > 0]  # a sliding window may end before the picture
    if not len(each):
        return torch.full((shares.shape[-1],), 1 / shares.shape[-1])
    if source.join == "turns":
        order = each.sort(dim=-1, descending=True, stable=True).indices
        rank = order.argsort(-1).amin(0)  # (n,)
        weight = (1.0 + rank) ** -source.power
        return weight / weight.sum()
    each = (each / each.sum(-1, keepdim=True)) ** source.power
    return (each / each.sum(-1, keepdim=True)).mean(0)
