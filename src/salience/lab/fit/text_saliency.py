"""How much each visual token is looked at by a picture's questions in the unpruned model.

Every question's attention over the picture's tokens is normalised to add up to 1 before the questions are averaged:
otherwise the questions that look hardest decide, and small items that few ask about are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.packing import pack, run
from salience.vlm.families import Adapter
from salience.vlm.in_llm.llm_layers import watch_columns
from salience.vlm.methods.finite import require_finite

ROWS = ("answer", "question")
JOINS = ("mean", "turns")


@dataclass(frozen=True, kw_only=True)
class Look:
    """Whose attention counts, and how.

    layer: of the language model, counted from 0; None for the mean over all
    rows: "answer" (the prompt's last token, from which the answer is read) or "question" (all its tokens, averaged)
    join: how a picture's questions come together. "mean": each question's shares, raised to `power` and normalised
    again, are averaged. "turns": the questions take turns, each naming the token that it looks at most among those not
    yet named by itself; a token named first in round r = 0, 1, ... weighs (1 + r) ** -power, so that every question's
    few best tokens come before any question's many good ones
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

    def describe(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {"layer": self.layer, "rows": self.rows, "power": self.power, "join": self.join}


#: The one reference of the `saliency_mass` column.
REFERENCE = Look()


@torch.no_grad()
def text_saliency(
    adapter: Adapter,
    pictures: EncodedPictures,
    looks: list[Look],
    *,
    batch: int = 4,
    tick: Callable[[int], object] | None = None,
) -> Tensor:
    """(looks, P, n) float32, each picture's shares adding up to 1: mean over its questions of the normalised attention.

    Computed from the unpruned model, its questions packed behind the picture; mean over heads.
    """
    total, n = len(pictures), pictures.features.shape[1]
    found = torch.zeros(len(looks), total, n)
    every = torch.arange(n)
    for start in range(0, total, batch):
        span = range(start, min(start + batch, total))
        packed = pack([pictures.prompts[i] for i in span], every.expand(len(span), n), n)
        layers: list[Tensor] = []

        def keep(layer: int, shares: Tensor, into: list[Tensor] = layers) -> None:
            into.append(shares.cpu())

        behind = slice(packed.visual.stop, packed.ids.shape[1])
        with watch_columns(adapter.language_model, rows=behind, columns=packed.visual, keep=keep):
            run(adapter, packed, pictures.projected[span.start : span.stop])
        stacked = torch.stack(layers)  # (layers, B, rows, n)
        for row, picture in enumerate(span):
            spans = [(first - behind.start, last - behind.start) for first, last in packed.spans[row]]
            for index, look in enumerate(looks):
                found[index, picture] = joined_shares(stacked[:, row], spans, look)
        if tick is not None:
            tick(len(span))
    return found


def joined_shares(shares: Tensor, spans: Sequence[tuple[int, int]], look: Look) -> Tensor:
    """(n,) of shares (layers, rows, n), the questions joined as the look says; even where nothing was looked at.

    spans: each question's first and last row, the last being the prompt's last token
    """
    chosen = shares.mean(0) if look.layer is None else shares[look.layer]  # (rows, n)
    first = [last if look.rows == "answer" else first for first, last in spans]
    each = torch.stack([chosen[a : last + 1].mean(0) for a, (_, last) in zip(first, spans, strict=True)])
    require_finite(each, "saliency", "attention values to learn from")
    each = each[each.sum(-1) > 0]  # a layer with a window may see nothing of a picture far back
    if not len(each):
        return torch.full((shares.shape[-1],), 1 / shares.shape[-1])
    if look.join == "turns":
        order = each.sort(dim=-1, descending=True, stable=True).indices
        round_ = order.argsort(-1).amin(0)  # (n,)
        weight = (1.0 + round_) ** -look.power
        return weight / weight.sum()
    each = (each / each.sum(-1, keepdim=True)) ** look.power
    return (each / each.sum(-1, keepdim=True)).mean(0)
