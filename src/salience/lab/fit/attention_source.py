"""Whose attention a scorer learns from, chosen on validation pictures.

Each candidate is tried as if the scorer were perfect: the validation pictures keep the tokens that the candidate's
attention, known exactly, ranks highest, and the frozen model answers from those. The most accurate candidate wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.packed_answers import answer
from salience.lab.fit.text_saliency import ROWS, Look, text_saliency
from salience.vlm.families import Adapter
from salience.vlm.methods.budget import Budget

_MOST_LAYERS = 8


def candidate_looks(adapter: Adapter) -> list[Look]:
    """The mean over layers and single layers (of a deep model, eight spread evenly), each for both kinds of rows.

    The questions take turns. Averaged, they fill a small budget with many tokens of the few items that are looked
    at hardest, and the scorer that learns that loses the others.
    """
    count = len(adapter.language_model.layers)  # type: ignore[arg-type]
    step = max(1, -(-count // _MOST_LAYERS))
    layers: list[int | None] = [None, *range(step - 1, count, step)]
    return [Look(layer=layer, rows=rows, power=2.0, join="turns") for layer in layers for rows in ROWS]


def choose_look(
    adapter: Adapter,
    validation: EncodedPictures,
    looks: Sequence[Look],
    keeps: Sequence[float],
    *,
    tick: Callable[[int], object] | None = None,
) -> tuple[Look, list[dict[str, Any]]]:
    """The look whose own ranking answers best, mean over `keeps`, and what each one came to (fit for JSON).

    `tick` is called with the number of looks done.
    """
    shares = text_saliency(adapter, validation, list(looks))  # (looks, P, n)
    tried: list[dict[str, Any]] = []
    for look, targets in zip(looks, shares, strict=True):
        reached = [answer(adapter, validation, top_tokens(targets, keep)).accuracy for keep in keeps]
        tried.append({**look.describe(), "accuracy": sum(reached) / len(reached)})
        if tick is not None:
            tick(1)
    best = max(range(len(looks)), key=lambda index: (tried[index]["accuracy"], -index))
    return looks[best], tried


def top_tokens(scores: Tensor, keep: float) -> list[Tensor]:
    """For each picture of scores (P, n) the tokens that a ratio keeps, rising; ties go to the earlier token."""
    k = Budget(keep=keep).count(scores.shape[1])
    order = scores.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return list(torch.sort(order, dim=-1).values)
