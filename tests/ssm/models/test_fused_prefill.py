"""Layers whose norms and residuals belong to their products: the same as the layers called one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from salience import MambaLM
from salience.ops.linear_rows import cpu_many
from salience.ssm.models.fused_prefill import join

from .conftest import build_theirs, near


@pytest.fixture(params=[{}, {"use_bias": True, "tie_word_embeddings": False}], ids=["plain", "biases"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[MambaLM, MambaLM]:
    """The same weights twice, the second never joined."""
    build_theirs(**request.param).save_pretrained(tmp_path)
    return MambaLM.from_pretrained(tmp_path), MambaLM.from_pretrained(tmp_path, backend="reference")


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_many, "worth", lambda: True)


def joins(model: MambaLM, tokens: torch.Tensor) -> bool:
    return join(model, model.backbone.embeddings(tokens)) is not None


@torch.no_grad()
def test_the_same_numbers(pair: tuple[MambaLM, MambaLM], ids: Any) -> None:
    (joined, plain), tokens = pair, ids(2, 40)
    mask, seq_idx = torch.ones(2, 40), torch.arange(40).expand(2, 40) // 25
    mask[0, :7], mask[1, 20:23] = 0, 0
    assert joins(joined, tokens) and not joins(plain, tokens)
    for options in ({}, {"attention_mask": mask}, {"seq_idx": seq_idx}, {"labels": tokens}, {"logits_to_keep": 17}):
        got, wanted = joined(tokens, **options), plain(tokens, **options)
        near(got.logits, wanted.logits)
        assert got.state is None and (got.loss is None or abs(got.loss - wanted.loss) < 1e-5)
    near(joined(tokens, logits_to_keep=1).logits, plain(tokens, logits_to_keep=1).logits)  # few rows: torch's product


@torch.no_grad()
def test_states_go_on(pair: tuple[MambaLM, MambaLM], ids: Any) -> None:
    (joined, plain), tokens = pair, ids(1, 75)
    first = joined(tokens[:, :40], return_state=True)
    second = joined(tokens[:, 40:], state=first.state, return_state=True)
    whole = plain(tokens, return_state=True)
    near(torch.cat([first.logits, second.logits], dim=1), whole.logits)
    for got, wanted in zip(second.state, whole.state, strict=True):
        near(got.conv, wanted.conv)
        near(got.ssm, wanted.ssm)


def test_what_is_not_joined(pair: tuple[MambaLM, MambaLM], ids: Any) -> None:
    model, tokens = pair[0], ids(1, 40)
    assert not joins(model, tokens)  # gradients
    with torch.no_grad():
        assert joins(model, tokens) and not joins(model, tokens[:, :20])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not joins(model, tokens)
        for part in (model.backbone.layers[1].mixer, model.backbone.layers[0].norm, model.backbone.embeddings):
            seen: list[object] = []
            hook = part.register_forward_hook(lambda *_, seen=seen: seen.append(0))
            assert not joins(model, tokens)
            seen.clear()
            model(tokens)
            assert len(seen) == 1
            hook.remove()
        assert joins(model, tokens)
        assert not joins(model.double(), tokens)
