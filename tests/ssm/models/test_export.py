"""torch.export with a length that is free: one program for short and long sequences, whatever its example had."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from salience import BiMamba, Mamba, MambaLM
from salience.ssm.layers.attention import Attention
from salience.ssm.layers.s4d import S4D
from salience.ssm.layers.s5 import S5
from salience.ssm.layers.windowed import WindowedAttention
from salience.ssm.models.sequence_model import SequenceModel

LENGTHS = (2, 3, 63, 64, 65, 129, 700)  # around the kernel's chunks of 64 steps
EXAMPLES = pytest.mark.parametrize("example", [9, 100])


def _numbers(length: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, length, 8, generator=torch.Generator().manual_seed(length))


def _check(model: nn.Module, make: Any, example: int, steps: Any = None) -> None:
    steps = torch.export.Dim("steps", min=2, max=2048) if steps is None else steps
    program = torch.export.export(model, (make(example),), dynamic_shapes=({1: steps},)).module()
    for length in LENGTHS:
        found, want = (run(make(length)) for run in (program, model))
        found, want = (x if isinstance(x, Tensor) else x[1] for x in (found, want))
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)  # the same kernels; torch may fuse a sum


@EXAMPLES
@pytest.mark.parametrize("kind", [Mamba, BiMamba, partial(BiMamba, form="hydra"), S4D, S5])
def test_layers(kind: Callable[[int], nn.Module], example: int) -> None:
    torch.manual_seed(0)
    _check(kind(8).eval(), _numbers, example)


@EXAMPLES
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [Attention, WindowedAttention])
def test_attention(kind: type[nn.Module], causal: bool, example: int) -> None:
    torch.manual_seed(0)
    # a window of 64: blocks of 64 steps. torch wants proofs of a length with a name that it cannot give
    _check(kind(8, n_heads=2, causal=causal).eval(), _numbers, example, torch.export.Dim.DYNAMIC)


@EXAMPLES
def test_a_language_model(example: int) -> None:
    torch.manual_seed(0)
    model = MambaLM(vocab_size=32, d_model=8, n_layers=2).eval()
    _check(model, lambda length: torch.arange(2 * length).reshape(2, length) % 32, example)


@EXAMPLES
def test_a_classifier(example: int) -> None:
    torch.manual_seed(0)
    _check(SequenceModel(mixer="MB", d_model=8, n_layers=2, n_classes=3, d_input=8).eval(), _numbers, example)


def test_rows_are_free_too() -> None:
    torch.manual_seed(0)
    model = Mamba(8).eval()
    shapes = {0: torch.export.Dim("rows", min=2, max=64), 1: torch.export.Dim("steps", min=2, max=2048)}
    program = torch.export.export(model, (_numbers(9),), dynamic_shapes=(shapes,)).module()
    for rows, length in ((2, 65), (5, 9), (7, 130)):
        x = _numbers(length, rows)
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-6)  # as above


def test_without_gradients() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        _check(Mamba(8).eval().requires_grad_(False), _numbers, 9)
