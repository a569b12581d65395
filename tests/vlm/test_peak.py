"""The most bytes alive in a pruned call: never above unpruned, whatever the method."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience
from salience.lab.profile.peak_memory import peak_bytes


@pytest.fixture(scope="module")
def model() -> Any:
    """The bundled model: of a tiny one the masks are as large as all the rest."""
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration.from_pretrained(salience.bundled_model()).eval()


@pytest.fixture(scope="module")
def call(model: Any) -> Any:
    ids = torch.tensor([[9] * 4 + [model.config.image_token_id] * 576 + [9] * 30])
    pixels = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    return lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, logits_to_keep=1)


@pytest.fixture(scope="module")
def unpruned(call: Any) -> int:
    return peak_bytes(call)


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        # one of each kind where few tokens go, so that little is saved: scores, steps, a product of all pairs, merging
        # into few and into all, inside the tower, inside the language model with and without merging; and all tokens
        ("cls-attention", 0.9), ("divprune", 0.9), ("vispruner", 0.9), ("visionzip", 0.9), ("prumerge+", 0.9),
        ("tome", 0.9), ("fastv", 0.9), ("sparsevlm", 0.9), ("fastv", 1),
    ],
)  # fmt: skip
def test_peak_is_never_above_unpruned(model: Any, call: Any, unpruned: int, name: str, keep: float) -> None:
    with salience.prune(model, name, keep=keep):
        assert peak_bytes(call) < 0.97 * unpruned  # by shapes, so the same everywhere; .95 at most when written
