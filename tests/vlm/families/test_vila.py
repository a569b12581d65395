"""VILA-like: two by two patches a token, several pictures among the text; folding against a loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import salience
from salience.vlm.families import adapter_for
from salience.vlm.families.vila import DownSampleProjector, VilaAdapter, fold

NEVER = [0, 3, 6]

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5


@pytest.mark.parametrize("side", [1, 4, 5])
def test_fold_by_a_loop(side: int) -> None:
    patches = torch.randn(2, side * side, 3, generator=torch.Generator().manual_seed(0))
    half = (side + 1) // 2
    wanted = torch.zeros(2, half * half, 12)
    for row in range(side):
        for column in range(side):
            token, part = row // 2 * half + column // 2, 2 * (row % 2) + column % 2
            wanted[:, token, 3 * part : 3 * part + 3] = patches[:, row * side + column]
    assert torch.equal(fold(patches), wanted)


def test_the_projectors_weights_have_the_originals_names() -> None:
    projector = DownSampleProjector(3, 8)
    assert {name: tuple(p.shape) for name, p in projector.named_parameters()} == {
        "layers.1.weight": (12,), "layers.1.bias": (12,), "layers.2.weight": (8, 12), "layers.2.bias": (8,),
        "layers.4.weight": (8, 8), "layers.4.bias": (8,),
    }  # fmt: skip
    patches = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(0))
    norm, first, second = (projector.layers[i] for i in (1, 2, 4))
    assert torch.equal(projector(patches), second(nn.functional.gelu(first(norm(fold(patches))))))


@torch.no_grad()
def test_received_attention_of_a_token_is_its_patches(tiny_family: Any) -> None:
    family = tiny_family("vila")
    model, batch = family.model(), family.batch([1])
    adapter = adapter_for(model)
    assert type(adapter) is VilaAdapter
    encoded = adapter.encode(batch["pixel_values"])
    seen = encoded.context(0, frozenset({"cls_attention", "keys"}))
    assert seen.cls_attention is not None
    assert seen.keys is not None
    assert float(seen.cls_attention.sum()) == pytest.approx(1, abs=1e-5)
    _, attend = adapter.states(batch["pixel_values"], {})
    assert attend is not None
    paid, keys = attend()[0].view(5, 5), attend.keys()[0].view(5, 5, 2, 12)
    for row in range(3):
        for column in range(3):
            block = (slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
            # float32 sums and means of at most four numbers
            assert float(seen.cls_attention[3 * row + column]) == pytest.approx(float(paid[block].sum()), abs=1e-6)
            wanted = keys[block].flatten(0, 1).mean(0)
            torch.testing.assert_close(seen.keys[3 * row + column], wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_generate_with_pictures_among_the_text(tiny_family: Any, mode: dict[str, Any]) -> None:
    """Rows of three pictures and of one, words between them: as the whole sequence with the dropped tokens masked."""
    family = tiny_family("vila")
    model, batch = family.model(), family.batch([3, 1])
    options = {**mode, "do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": NEVER}
    with salience.prune(model, "visionzip", keep=0.34) as pruned:
        model.generate(**batch, **options)
    assert [len(image.kept) for image in pruned.trace.images] == [3] * 4
    with salience.prune(model, "random", keep=0.34) as pruned:
        got = model.generate(**batch, **options)
    mask = batch["attention_mask"]
    stays = torch.zeros_like(mask, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
    masked = {**batch, "attention_mask": mask.masked_fill(~stays, 0), "position_ids": positions}
    assert torch.equal(got, model.generate(**masked, **options))


def test_leaving_and_training(tiny_family: Any) -> None:
    family = tiny_family("vila")
    model, batch = family.model(), family.batch([1, 2])
    with salience.prune(model, "fastervlm", keep=0.5):
        model(**batch).logits.square().mean().backward()
    assert float(model.model.multi_modal_projector.layers[4].weight.grad.abs().max()) > 0
    assert "forward" not in model.__dict__
