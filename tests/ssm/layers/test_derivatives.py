"""Every layer under torch's transformations: tangents, gradients of gradients and of each part of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

from salience import BiMamba, Mamba
from salience.ssm.layers.attention import Attention
from salience.ssm.layers.lstm import LSTM
from salience.ssm.layers.s4 import S4
from salience.ssm.layers.s4d import S4D
from salience.ssm.layers.s5 import S5
from salience.ssm.layers.windowed import WindowedAttention

# torch's own, where it first takes a derivative in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

WIDTH, LENGTH = 4, 6
MASK = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1]]).bool()
LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "Mamba": (Mamba, {}),
    "BiMamba": (BiMamba, {}),
    "Hydra": (BiMamba, {"form": "hydra"}),
    "S4": (S4, {"d_state": 4}),
    "S4D": (S4D, {"d_state": 4}),
    "S5": (S5, {"d_state": 4}),
    "Attention": (Attention, {"n_heads": 2}),
    "WindowedAttention": (WindowedAttention, {"n_heads": 2, "window": 2, "n_global": 1}),
    "LSTM": (LSTM, {}),
    "LSTM, both ways": (LSTM, {"causal": False}),
}
NAMES = pytest.mark.parametrize("name", LAYERS)
MASKED = pytest.mark.parametrize("masked", [False, True], ids=["", "padded"])


def _layer(name: str) -> Any:
    torch.manual_seed(1)
    kind, options = LAYERS[name]
    return kind(WIDTH, **options).double()


def _input(seed: int = 0) -> Tensor:
    return torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _run(layer: Any, masked: bool) -> Callable[[Tensor], Tensor]:
    return lambda x: layer(x, mask=MASK) if masked else layer(x)


def _difference(f: Callable[[Tensor], Tensor], x: Tensor, along: Tensor) -> Tensor:
    return (f(x + 1e-6 * along) - f(x - 1e-6 * along)).detach() / 2e-6


def _gradient(f: Callable[[Tensor], Tensor], x: Tensor, **options: Any) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(f(leaf).square().sum(), leaf, **options)[0]


def _close(got: Tensor, want: Tensor) -> None:
    # beside central differences in float64, good to 1e-9
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6 * float(want.abs().max()))


@MASKED
@NAMES
def test_tangents_of_the_input(name: str, masked: bool) -> None:
    f, x, along = _run(_layer(name), masked), _input(), _input(1)
    want = _difference(f, x, along)
    assert want.abs().max() > 1e-3
    _close(jvp(f, (x,), (along,))[1], want)
    with torch.no_grad(), fwd.dual_level():
        _close(fwd.unpack_dual(f(fwd.make_dual(x, along))).tangent, want)


@NAMES
def test_tangents_of_every_parameter(name: str) -> None:
    layer, x = _layer(name), _input()
    for key, parameter in layer.named_parameters():
        held = parameter.detach()
        along = torch.randn(held.shape, dtype=held.dtype, generator=torch.Generator().manual_seed(2))
        f = lambda p, key=key: functional_call(layer, {key: p}, (x,))  # noqa: E731
        want = _difference(f, held, along)
        # as `_close`, beside outputs of about 1: some parameters move them by millionths
        torch.testing.assert_close(jvp(f, (held,), (along,))[1], want, rtol=1e-5, atol=1e-9)


@MASKED
@NAMES
def test_gradients_of_each_part_of_a_batch(name: str, masked: bool) -> None:
    layer, x = _layer(name), _input()
    held = {key: parameter.detach() for key, parameter in layer.named_parameters()}

    def loss(held: dict[str, Tensor], x: Tensor, mask: Tensor) -> Tensor:
        return functional_call(layer, held, (x[None],), {"mask": mask[None]} if masked else {}).square().sum()

    got = vmap(grad(loss), (None, 0, 0))(held, x, MASK)
    for row in range(2):
        layer.zero_grad()
        y = layer(x[row : row + 1], **({"mask": MASK[row : row + 1]} if masked else {}))
        y.square().sum().backward()
        for key, parameter in layer.named_parameters():
            want = parameter.grad
            # float64 in another order
            torch.testing.assert_close(got[key][row], want, rtol=1e-8, atol=1e-10 * float(1 + want.abs().max()))


@NAMES
def test_gradients_of_gradients(name: str) -> None:
    layer, along = _layer(name), _input(1)
    f, x = _run(layer, True), _input()
    want = _difference(lambda x: _gradient(f, x), x, along)
    _close(jvp(grad(lambda x: f(x).square().sum()), (x,), (along,))[1], want)
    if name == "WindowedAttention":  # torch's own attention has none
        with pytest.raises(RuntimeError, match=r"derivative for .*attention.* is not implemented"):
            torch.autograd.functional.hvp(lambda x: f(x).square().sum(), x, along)
        return
    _close(torch.autograd.functional.hvp(lambda x: f(x).square().sum(), x, along)[1], want)
    leaf = x.clone().requires_grad_()
    y = checkpoint(f, leaf, use_reentrant=False)
    (first,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
    _close(torch.autograd.grad((first * along).sum(), leaf)[0], want)


@pytest.mark.parametrize("name", ["Mamba", "BiMamba", "Hydra", "S4", "S4D", "S5", "LSTM"])
def test_a_penalty_on_the_gradient_teaches_every_parameter(name: str) -> None:
    layer, x = _layer(name), _input()
    f = _run(layer, False)

    def penalty() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(f(leaf).square().sum(), leaf, create_graph=True)[0].square().sum()

    penalty().backward()
    for parameter in layer.parameters():
        along = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        sides = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                parameter += step * along
            sides.append(penalty().detach())
        with torch.no_grad():
            parameter += 1e-6 * along
        want = (sides[0] - sides[1]) / 2e-6
        got = 0 * want if parameter.grad is None else (parameter.grad * along).sum()
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)  # central differences


@pytest.mark.parametrize("name", [n for n in LAYERS if hasattr(LAYERS[n][0], "step") and "both" not in n])
def test_a_step_has_tangents_and_batches_and_refuses_gradients(name: str) -> None:
    layer, x, along = _layer(name), _input(), _input(1)

    def last(x: Tensor) -> Tensor:
        return layer.step(x[:, -1], layer(x[:, :-1], return_state=True)[1])

    want = _difference(last, x, along)
    _close(jvp(last, (x,), (along,))[1], want)
    with fwd.dual_level():
        _close(fwd.unpack_dual(last(fwd.make_dual(x, along))).tangent, want)
    batch = torch.stack([x, along])
    torch.testing.assert_close(vmap(last)(batch), torch.stack([last(x), last(along)]))
    with pytest.raises(RuntimeError, match=r"step has no gradients, and torch\.func\.grad"):
        grad(lambda x: last(x).sum())(x)


@pytest.mark.parametrize("name", ["S4", "S4D", "S5", "Mamba"])
def test_layers_on_the_meta_device(name: str) -> None:
    layer, x = _layer(name).to("meta"), _input().to("meta")
    y, state = layer(x, return_state=True)
    assert y.is_meta
    assert y.shape == x.shape
    assert layer.step(x[:, 0], state).shape == x[:, 0].shape
