"""Traces print as one short line."""

from __future__ import annotations

from typing import Any

import torch

import salience
from salience.vlm.methods.fastv import FastV


@torch.no_grad()
def test_printing_a_trace(model: Any, make_batch: Any) -> None:
    with salience.prune(model, "cls-attention", tokens=4) as pruned:
        model(**make_batch([1, 2]))
    scores = pruned.trace.images[0].scores
    assert scores is not None
    low, high = float(scores.min()), float(scores.max())
    assert str(pruned.trace.images[0]) == f"ImageTrace(4 x 4 grid, 4 of 16 tokens kept, scores {low:.3g} to {high:.3g})"
    assert str(pruned.trace) == "Trace(3 images, 12 of 48 tokens kept)"


@torch.no_grad()
def test_printing_stages(model: Any, make_batch: Any) -> None:
    with salience.prune(model, FastV(layer=1), tokens=4) as pruned:
        model(**make_batch([1]))
    (image,) = pruned.trace.images
    assert str(image).startswith("ImageTrace(4 x 4 grid, 4 of 16 tokens kept, scores ")
    assert str(image).endswith(", dropped from layer 1 on)")
    assert str(image.stages[0]) == "StageTrace(layer=1, 4 kept)"


@torch.no_grad()
def test_without_scores(model: Any, make_batch: Any) -> None:
    with salience.prune(model, "uniform", tokens=4) as pruned:
        assert str(pruned.trace) == "Trace(0 images, 0 of 0 tokens kept)"
        model(**make_batch([1]))
    assert str(pruned.trace) == "Trace(1 image, 4 of 16 tokens kept)"
    assert str(pruned.trace.images[0]) == "ImageTrace(4 x 4 grid, 4 of 16 tokens kept)"
