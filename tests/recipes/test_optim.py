"""Muon and AdamW with a master copy: the pieces of a step."""

from __future__ import annotations

from pathlib import Path

import torch
from checkpoints import load_checkpoint, save_checkpoint
from optim import MuonAdamW, cosine, orthogonalise


def test_newton_schulz_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 64), (2, 64, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        # the quintic of five steps settles between .68 and 1.13; bfloat16 adds a percent
        assert values.min() > 0.6 and values.max() < 1.3


def _problem() -> tuple[torch.nn.Parameter, torch.nn.Parameter, MuonAdamW]:
    torch.manual_seed(1)
    matrix, bias = torch.nn.Parameter(torch.randn(8, 4).bfloat16()), torch.nn.Parameter(torch.zeros(8))
    return matrix, bias, MuonAdamW([matrix], [bias])


def _descend(matrix: torch.nn.Parameter, bias: torch.nn.Parameter, optim: MuonAdamW, steps: int) -> list[float]:
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(2))
    want = data @ torch.ones(4, 8) + 3
    losses = []
    for step in range(steps):
        optim.zero_grad()
        loss = (data @ matrix.float().T + bias - want).square().mean()
        loss.backward()
        optim.step(cosine(step, steps, 0.2, 0.01))
        losses.append(loss.item())
    return losses


def test_it_descends_and_small_steps_are_not_rounded_away() -> None:
    matrix, bias, optim = _problem()
    losses = _descend(matrix, bias, optim, 300)
    assert losses[-1] < 0.1 * losses[0]
    assert matrix.dtype == torch.bfloat16 and optim.master[0].dtype == torch.float32
    assert torch.equal(matrix, optim.master[0].bfloat16())


def test_going_on_from_a_checkpoint_gives_the_same_numbers(tmp_path: Path) -> None:
    matrix, bias, optim = _problem()
    whole = _descend(matrix, bias, optim, 10) + _descend(matrix, bias, optim, 10)
    matrix, bias, optim = _problem()
    first = _descend(matrix, bias, optim, 10)
    save_checkpoint(tmp_path / "c.pt", optim, 1, 10)
    matrix, bias, optim = _problem()
    assert load_checkpoint(tmp_path / "c.pt", optim) == (1, 10)
    assert first + _descend(matrix, bias, optim, 10) == whole


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    rates = [cosine(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == 0.2 and max(rates) == 1.0 and 0.1 <= rates[-1] < 0.11
