"""Merging inside the tower through `prune`: forward and generate see the same tokens, and the tower is as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5


def test_nothing_is_left_on_the_tower(tiny_family: Any, photograph: Any) -> None:
    family = tiny_family("llava")
    model, batch = family.model(), family.batch([1, 2])
    before = photograph(model)
    with salience.prune(model, "tome", keep=0.5):
        model(**batch)
        model.generate(**batch, max_new_tokens=2)
    assert photograph(model) == before


@torch.no_grad()
def test_generate_goes_on_from_what_forward_sees(tiny_family: Any) -> None:
    """Beams and padding: the first new token is the one that forward's last logits give."""
    family = tiny_family("llava")
    model, batch = family.model(), family.batch([1, 2])
    with salience.prune(model, "tome", keep=0.5) as pruned:
        logits = model(**batch, position_ids=(batch["attention_mask"].cumsum(1) - 1).clamp_min(0)).logits[:, -1]
        out = model.generate(**batch, max_new_tokens=1, min_new_tokens=1, do_sample=False, output_logits=True,
                             return_dict_in_generate=True)  # fmt: skip
    torch.testing.assert_close(out.logits[0], logits, atol=FLOAT32, rtol=0)
    assert all(len(image.kept) == 5 for image in pruned.trace.images)


@torch.no_grad()
def test_then_a_method_behind_the_tower_and_one_inside_the_language_model(tiny_family: Any) -> None:
    from salience.vlm.methods.compose import then
    from salience.vlm.methods.divprune import DivPrune
    from salience.vlm.methods.fastv import FastV
    from salience.vlm.methods.tome import ToMe

    family = tiny_family("llava")
    model, batch = family.model(), family.batch([1, 2])
    wanted = model(**batch).logits
    for second in (DivPrune(), FastV(layer=1)):
        both = then(ToMe(), second, keep=0.6)
        with salience.prune(model, both, keep=1):
            assert torch.equal(model(**batch).logits, wanted)
        with salience.prune(model, both, tokens=3) as pruned:
            model(**batch)
        for image in pruned.trace.images:
            assert len(image.kept) == 3
            assert len(image.kept if image.entered is None else image.entered) == (
                3 if second.name == "divprune" else 5
            )


def test_what_reads_the_towers_attention_can_not_follow(tiny_family: Any) -> None:
    from salience.vlm.methods.cls_attention import ClsAttention
    from salience.vlm.methods.compose import then
    from salience.vlm.methods.tome import ToMe

    with pytest.raises(ValueError, match="use a second method that reads none"):
        salience.prune(tiny_family("llava").model(), then(ToMe(), ClsAttention(), keep=0.5), keep=0.25)
