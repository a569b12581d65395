"""Gradients of a fused model against transformers', with and without masks, checkpointing and autocast."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import salience


def gradients(model: Any, tokens: Tensor, **options: Any) -> dict[str, Tensor]:
    """The loss's gradient for every parameter, in training mode, of a copy."""
    model = copy.deepcopy(model).train()
    if options.pop("checkpointing", False):
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()  # transformers is about to rename it
    loss = model(input_ids=tokens, use_cache=False, **options).loss
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(grad is not None for grad in found.values())
    return {"loss": loss.detach(), **found}


def compare(near: Any, got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert got.keys() == wanted.keys()
    for name in wanted:
        # a gradient sums over all tokens and rows what nearly cancels: ten times what a single output is off
        near(got[name], wanted[name], tolerance if name == "loss" else 10 * tolerance)


def test_without_a_mask(model: Any, fused: Any, ids: Any, near: Any) -> None:
    tokens = ids(2, 70)
    compare(near, gradients(fused, tokens, labels=tokens), gradients(model, tokens, labels=tokens))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(model: Any, fused: Any, ids: Any, near: Any, side: str) -> None:
    tokens, mask = ids(2, 12), torch.ones(2, 12, dtype=torch.long)
    mask[0, : 5 if side == "left" else 12] = 0
    if side == "right":
        mask[0, :7] = 1
    options = {"attention_mask": mask, "labels": tokens.masked_fill(mask == 0, -100)}
    compare(near, gradients(fused, tokens, **options), gradients(model, tokens, **options))


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"], indirect=True)
def test_inner_padding_is_as_if_it_were_not_there(model: Any, fused: Any, ids: Any, near: Any) -> None:
    tokens, mask = ids(1, 12), torch.ones(1, 12, dtype=torch.long)
    mask[0, 4:9] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    labels[0, 9] = -100  # its predecessor is a gap here, and a token there
    short = tokens[mask.bool()][None].clone()
    wanted = short.clone()
    wanted[0, 4] = -100
    compare(near, gradients(fused, tokens, attention_mask=mask, labels=labels), gradients(model, short, labels=wanted))


def test_gradient_checkpointing(fused: Any, ids: Any) -> None:
    tokens = ids(2, 10)
    plain = gradients(fused, tokens, labels=tokens)
    checkpointed = gradients(fused, tokens, labels=tokens, checkpointing=True)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_frozen_projections(model: Any, fused: Any, ids: Any, near: Any) -> None:
    for each in (model, fused):
        for name, parameter in each.named_parameters():
            parameter.requires_grad_(name.endswith(("A_log", ".D", "conv1d.weight")))
    tokens = ids(2, 10)
    compare(near, gradients(fused, tokens, labels=tokens), gradients(model, tokens, labels=tokens))


def test_gradients_of_input_embeddings(model: Any, fused: Any, near: Any) -> None:
    found = []
    for each in (fused, model):
        inputs = torch.randn(2, 9, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
        each(inputs_embeds=inputs, use_cache=False).logits.square().sum().backward()
        assert inputs.grad is not None
        found.append(inputs.grad)
    near(found[0], found[1], 1e-4)  # as above


def test_autocast(model: Any, fused: Any, ids: Any, near: Any) -> None:
    tokens = ids(2, 20)
    exact = gradients(model, tokens, labels=tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = gradients(fused, tokens, labels=tokens), gradients(model, tokens, labels=tokens)

    def off(found: dict[str, Tensor]) -> float:
        parts = [float((found[name] - exact[name]).square().sum() / exact[name].square().sum()) for name in exact]
        return sum(parts) / len(parts)

    # bfloat16 products: judged by the distance from float32, where ours, with fewer roundings, may not be worse
    assert off(ours) <= 1.1 * off(theirs)


def test_a_step_of_training(model: Any, ids: Any, near: Any) -> None:
    tokens, losses = ids(2, 10), []
    for fusing in (False, True):
        each = copy.deepcopy(model).train()
        handle = salience.fuse(each) if fusing else None
        optimiser = torch.optim.SGD(each.parameters(), lr=0.1)
        for _ in range(3):
            loss = each(input_ids=tokens, labels=tokens, use_cache=False).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if handle is not None:
            handle.undo()
        losses.append(each(input_ids=tokens, labels=tokens, use_cache=False).loss)
    near(losses[1], losses[0], 1e-4)  # three steps carry the differences on
