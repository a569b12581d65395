"""A fused model's derivatives beside the same model's before it was fused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap

import salience

# torch's own, where it first takes a derivative in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture(params=["Mamba", "FalconMamba"])
def models(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Plain and fused, the same weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind = getattr(transformers, request.param + "Config")
    config = kind(vocab_size=32, hidden_size=8, num_hidden_layers=2, state_size=4)
    plain = getattr(transformers, request.param + "Model")(config).eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    fused = copy.deepcopy(plain)
    salience.fuse(fused)
    return plain, fused


def _run(model: Any, x: Tensor) -> Tensor:
    y: Tensor = model(inputs_embeds=x, use_cache=False).last_hidden_state
    return y


def _close(got: Tensor, want: Tensor) -> None:
    # float32 through two layers and two norms, sums in another order
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.detach().abs().max()))


def test_tangents(models: tuple[Any, Any]) -> None:
    x, along = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    want, got = (jvp(lambda x, m=model: _run(m, x), (x,), (along,))[1] for model in models)
    assert want.abs().max() > 0.1
    _close(got, want)


def test_a_penalty_on_the_gradient(models: tuple[Any, Any]) -> None:
    x = torch.randn(2, 5, 8)
    for model in models:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(_run(model, leaf).square().sum(), leaf, create_graph=True)
        first.square().sum().backward()
    for want, got in zip(*(model.parameters() for model in models), strict=True):
        if want.grad is not None:
            _close(got.grad, want.grad)


def test_gradients_of_each_part_of_a_batch(models: tuple[Any, Any]) -> None:
    _, fused = models
    x = torch.randn(2, 5, 8)
    held = {name: parameter.detach() for name, parameter in fused.named_parameters()}

    def loss(held: dict[str, Tensor], x: Tensor) -> Tensor:
        options = {"inputs_embeds": x[None], "use_cache": False}
        return functional_call(fused, held, (), options).last_hidden_state.square().sum()

    got = vmap(grad(loss), (None, 0))(held, x)
    for row in range(2):
        fused.zero_grad()
        _run(fused, x[row : row + 1]).square().sum().backward()
        for name, parameter in fused.named_parameters():
            if parameter.grad is not None:
                _close(got[name][row], parameter.grad)
