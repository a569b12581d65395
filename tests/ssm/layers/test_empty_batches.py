"""No rows at all, as the last share of a split batch or a mask that keeps none gives: nothing comes out, no error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.func import grad, jvp, vmap

from salience import BiMamba, Mamba
from salience.ssm.layers.attention import Attention
from salience.ssm.layers.lstm import LSTM
from salience.ssm.layers.s4 import S4
from salience.ssm.layers.s4d import S4D
from salience.ssm.layers.s5 import S5
from salience.ssm.layers.windowed import WindowedAttention

# torch's own, where it first takes a derivative in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

LAYERS: dict[str, Callable[[int], Any]] = {
    "Mamba": Mamba, "BiMamba": BiMamba, "Hydra": partial(BiMamba, form="hydra"),
    "S4": S4, "S4D": S4D, "S5": S5, "LSTM": LSTM,
    "Attention": lambda width: Attention(width, n_heads=2),
    "WindowedAttention": lambda width: WindowedAttention(width, n_heads=2, window=2),
}  # fmt: skip
WIDTH, LENGTH = 4, 5


@pytest.mark.parametrize("name", LAYERS)
def test_forward_and_backward(name: str) -> None:
    layer, x = LAYERS[name](WIDTH), torch.zeros(0, LENGTH, WIDTH, requires_grad=True)
    for options in ({}, {"mask": torch.ones(0, LENGTH, dtype=torch.bool)}):
        y = layer(x, **options)
        assert y.shape == x.shape
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert dx.shape == x.shape


@pytest.mark.parametrize("name", ["Mamba", "S4", "S4D", "S5"])
def test_states_and_derivatives(name: str) -> None:
    layer, x = LAYERS[name](WIDTH), torch.zeros(0, LENGTH, WIDTH)
    y, state = layer(x, return_state=True)
    again, last = layer(x, state=state, return_state=True)
    backwards = layer(x, state=last, reverse=True)
    assert y.shape == again.shape == backwards.shape == x.shape
    assert layer.step(x[:, 0], layer.init_state(0)).shape == (0, WIDTH)
    assert jvp(layer, (x,), (x,))[1].shape == grad(lambda x: layer(x).sum())(x).shape == x.shape
    assert vmap(layer)(x.expand(3, *x.shape)).shape == (3, *x.shape)
