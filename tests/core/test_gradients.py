"""Functions without gradients inside torch.func's transformations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vjp, vmap

from salience.core.gradients import no_gradients
from salience.ops.causal_conv1d import causal_conv1d_step
from salience.ops.selective_scan import selective_scan_step
from salience.ssm import compat

# torch's own, where it first takes a derivative in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@no_gradients
def doubled(x: Tensor) -> Tensor:
    return 2 * x


def test_it_has_none_and_says_so_where_silence_would_be_a_zero() -> None:
    x = torch.ones(3, requires_grad=True)
    assert not doubled(x).requires_grad
    for take in (grad(lambda x: doubled(x).sum()), jacrev(doubled), lambda x: vjp(doubled, x)[1](x)):
        with pytest.raises(RuntimeError, match=r"doubled has no gradients, and torch\.func\.grad, vjp and jacrev"):
            take(x.detach())


def test_decoding_steps_say_so_too() -> None:
    window, state, x = torch.zeros(1, 3, 4), torch.zeros(1, 4, 2), torch.ones(1, 4)
    A, B, weight = -torch.ones(4, 2), torch.ones(1, 2), torch.ones(4, 4)
    for name, run in {
        "causal_conv1d_step": lambda x: causal_conv1d_step(window.clone(), x, weight),
        "causal_conv1d_update": lambda x: compat.causal_conv1d_update(x, window.mT.clone(), weight),
        "selective_scan_step": lambda x: selective_scan_step(state.clone(), x, x, A, B, B),
    }.items():
        assert run(x).shape == x.shape
        with pytest.raises(RuntimeError, match=f"{name} has no gradients"):
            grad(lambda x, run=run: run(x).sum())(x)


def test_tangents_batches_and_constants_pass() -> None:
    x = torch.ones(3)
    assert torch.equal(jvp(doubled, (x,), (x,))[1], 2 * x)
    assert torch.equal(vmap(doubled)(x), 2 * x)

    def with_a_constant(x: Tensor) -> Tensor:
        with torch.no_grad():
            factor = doubled(x)
        return (factor * x).sum()

    assert torch.equal(grad(with_a_constant)(x), 2 * x)
