"""Layers whose parts are wrapped, hooked, in few bits or elsewhere: what they do counts, not what their weight says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

import salience
from salience.ssm.layers.attention import Attention
from salience.ssm.layers.lstm import LSTM
from salience.ssm.layers.projections import is_plain

# float32: sums of some dozen terms of order one, in another order
NEAR = {"atol": 2e-5, "rtol": 2e-5}
D, N, W = 12, 4, 4

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*torch.ao.quantization")


class Louder(nn.Module):
    """Somebody's wrapper: the wrapped weight is there to read, and is not what it does."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> Tensor:
        found: Tensor = self.base.weight
        return found

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = 1.5 * self.base(x) + 0.1
        return y


class Halved(Tensor):
    """A weight that multiplies in a way of its own, as torchao's do."""

    @classmethod
    def __torch_function__(cls, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not F.linear:
            return super().__torch_function__(function, kinds, args, kwargs or {})
        x, weight, *bias = args
        return F.linear(x, weight.as_subclass(Tensor) / 2, *bias, **(kwargs or {}))


class Sub(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Linear's name)
        return 2 * super().forward(input)


def _subclass(part: Any) -> Any:
    part.__class__ = Sub
    return part


def _weight_norm(part: Any) -> Any:
    part = nn.utils.weight_norm(part)
    with torch.no_grad():
        part.weight_g.mul_(1.5)  # as an optimiser would: `weight` is only made anew when the part is called
    return part


def _parametrised(part: Any) -> Any:
    part = parametrizations.weight_norm(part)
    with torch.no_grad():
        part.parametrizations.weight.original0.mul_(1.5)
    return part


def _pruned(part: Any) -> Any:
    prune.random_unstructured(part, "weight", 0.5)
    with torch.no_grad():
        part.weight_orig.mul_(1.5)
    return part


def _hooked(part: Any) -> Any:
    part.register_forward_hook(lambda module, args, y: 1.5 * y)
    return part


def _hooked_before(part: Any) -> Any:
    part.register_forward_pre_hook(lambda module, args: (1.5 * args[0],))
    return part


def _own_forward(part: Any) -> Any:
    theirs = part.forward
    part.forward = lambda x: 1.5 * theirs(x)
    return part


def _fake_quantised(part: Any) -> Any:
    part.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    quantised = torch.ao.nn.qat.Linear.from_float(part)
    quantised(torch.randn(8, part.in_features))  # its scale
    return quantised.eval()


def _spectral_norm(part: Any) -> Any:
    part = nn.utils.spectral_norm(part, n_power_iterations=20)
    part(torch.randn(8, part.in_features))
    return part.eval()


def _int8(part: Any) -> Any:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(part), {nn.Linear})[0]


def _tensor_subclass(part: Any) -> Any:
    part.weight = nn.Parameter(part.weight.detach().as_subclass(Halved), requires_grad=False)
    assert type(part.weight) is Halved
    return part


def _plain_weight(part: Any) -> Any:
    weight = 1.5 * part.weight.detach()
    del part.weight
    part.weight = weight  # FSDP and functional code leave a tensor that is no parameter
    return part


ANY: dict[str, Callable[[Any], Any]] = {
    "wrapper": Louder, "sequential": lambda part: nn.Sequential(part, nn.Tanh()), "weight_norm": _weight_norm,
    "parametrised": _parametrised, "pruned": _pruned, "hook": _hooked, "pre-hook": _hooked_before,
    "own forward": _own_forward, "plain weight": _plain_weight,
}  # fmt: skip
LINEAR = {
    **ANY, "subclass": _subclass, "int8": _int8, "spectral_norm": _spectral_norm,
    "tensor subclass": _tensor_subclass, "fake quantised": _fake_quantised,
}  # fmt: skip
CASES = [(name, part) for part in ("in_proj", "x_proj", "dt_proj", "out_proj") for name in LINEAR]
CASES += [(name, "conv1d") for name in ANY]


def layer() -> Any:
    torch.manual_seed(0)
    made = salience.Mamba(D, d_state=N, d_conv=W, dt_rank=2, bias=True).eval()
    with torch.no_grad():
        made.x_proj.weight.mul_(10)  # so that dt, B and C depend on the input
        made.dt_proj.weight.mul_(10)
    return made


def wrapped(name: str, part: str) -> Any:
    made = layer()
    setattr(made, part, LINEAR[name](getattr(made, part)))
    return made


def by_hand(mixer: Any, x: Tensor) -> Tensor:
    """The block as the paper has it, every part called."""
    u, z = mixer.in_proj(x).chunk(2, dim=-1)
    u = F.silu(mixer.conv1d(F.pad(u.transpose(1, 2), (W - 1, 0))).transpose(1, 2))
    selected = mixer.x_proj(u)
    low, B, C = selected.split([selected.shape[-1] - 2 * N, N, N], dim=-1)
    dt, A, h, found = F.softplus(mixer.dt_proj(low)), -mixer.A_log.exp(), 0.0, []
    for t in range(x.shape[1]):
        step = dt[:, t, :, None]
        h = (step * A).exp() * h + step * B[:, t, None] * u[:, t, :, None]
        found.append((h * C[:, t, None]).sum(-1) + mixer.D * u[:, t])
    y: Tensor = mixer.out_proj(torch.stack(found, dim=1) * F.silu(z))
    return y


@torch.no_grad()
@pytest.mark.parametrize(("name", "part"), CASES)
@pytest.mark.parametrize("rows", [2, 40])  # few go through a kernel of their own, many through BLAS or another
def test_mamba_calls_what_is_not_plain(name: str, part: str, rows: int) -> None:
    mixer, x = wrapped(name, part), 0.3 * torch.randn(2, rows // 2 + 8, D)
    with torch.enable_grad():  # the bare weight of weight_norm is a node of a graph
        wanted = by_hand(mixer, x)
    if name != "tensor subclass":  # whose module is as plain as any
        assert not is_plain(getattr(mixer, part), type(getattr(layer(), part)))
    assert (wanted - by_hand(layer(), x)).abs().max() > 5e-5  # it makes a difference
    torch.testing.assert_close(mixer(x), wanted, **NEAR)
    if name in ("int8", "fake quantised"):  # whose scale is each call's own
        return
    state = mixer.init_state(2)
    first, state = mixer(x[:, :5], state=state, return_state=True)
    steps = [mixer.step(x[:, t], state) for t in range(5, x.shape[1])]
    torch.testing.assert_close(torch.cat([first, torch.stack(steps, dim=1)], dim=1), wanted, **NEAR)


@torch.no_grad()
@pytest.mark.parametrize("name", ["wrapper", "weight_norm", "hook", "own forward"])
def test_a_convolution_that_is_called_skips_padding_and_keeps_sequences_apart(name: str) -> None:
    mixer, x = wrapped(name, "conv1d"), torch.randn(1, 9, D)
    wanted = by_hand(mixer, x)
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1]]).bool()
    padded = torch.randn(1, 13, D)
    padded[mask] = x[0]
    y, state = mixer(padded, mask=mask, return_state=True)
    torch.testing.assert_close(y[mask][None], wanted, **NEAR)
    more = torch.randn(1, 3, D)
    torch.testing.assert_close(mixer(more, state=state), by_hand(mixer, torch.cat([x, more], 1))[:, 9:], **NEAR)
    packed = mixer(torch.cat([x, more], 1), seq_idx=torch.tensor([[0] * 9 + [1] * 3]))
    torch.testing.assert_close(packed, torch.cat([wanted, by_hand(mixer, more)], 1), **NEAR)
    backwards = mixer(x, reverse=True)
    torch.testing.assert_close(backwards, by_hand(mixer, x.flip(1)).flip(1), **NEAR)


def test_what_computes_a_weight_is_trained() -> None:
    """Read where it lay, weight_norm's weight was the one of the first day, and its parts had no gradient."""
    mixer, x = wrapped("weight_norm", "conv1d"), torch.randn(2, 7, D)
    wanted = torch.autograd.grad(by_hand(mixer, x).square().sum(), [mixer.conv1d.weight_g, mixer.conv1d.weight_v])
    found = torch.autograd.grad(mixer(x).square().sum(), [mixer.conv1d.weight_g, mixer.conv1d.weight_v])
    # sums over the sequence of products of order one
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def _effective(part: Any, name: str) -> None:
    """The plain part that does what the wrapped one does."""
    with torch.no_grad():
        part.weight.mul_(1.5)
        if name in ("hook", "own forward") and part.bias is not None:
            part.bias.mul_(1.5)


@torch.no_grad()
@pytest.mark.parametrize("form", ["vim", "hydra"])
@pytest.mark.parametrize("name", ["weight_norm", "hook", "own forward", "parametrised"])
@pytest.mark.parametrize("part", ["conv1d", "dt_proj", "x_proj", "in_proj", "out_proj"])
def test_both_directions_call_what_is_not_plain(form: str, name: str, part: str) -> None:
    torch.manual_seed(0)
    mixer = salience.BiMamba(D, form=form, d_state=N).eval()
    other = copy.deepcopy(mixer)
    setattr(mixer, part, LINEAR[name](getattr(mixer, part)))
    _effective(getattr(other, part), name)
    x, mask = torch.randn(2, 11, D), torch.rand(2, 11) > 0.3
    seq_idx = torch.tensor([[0] * 6 + [1] * 5]).expand(2, -1)
    for options in ({}, {"mask": mask}, {"seq_idx": seq_idx}, {"mask": mask, "seq_idx": seq_idx}):
        torch.testing.assert_close(mixer(x, **options), other(x, **options), **NEAR)


@torch.no_grad()
@pytest.mark.parametrize("make", [
    lambda: salience.Mamba(D), lambda: salience.BiMamba(D), lambda: salience.BiMamba(D, form="hydra"),
    lambda: Attention(D, n_heads=2), lambda: LSTM(D),
])  # fmt: skip
def test_dynamic_int8(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    whole, x = make().eval(), torch.randn(2, 9, D)
    few = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear})
    # 8 bits in weights and activations: a few percent of numbers of order .3
    assert 0 < (few(x) - whole(x)).abs().max() < 0.05
    if hasattr(few, "init_state"):
        state = few.init_state(2)
        steps = torch.stack([few.step(x[:, t], state) for t in range(9)], dim=1)
        # a token's activations have a scale of their own, the batch's another
        torch.testing.assert_close(steps, few(x), atol=0.03, rtol=0.03)


@torch.no_grad()
def test_weights_that_accelerate_keeps_elsewhere() -> None:
    accelerate = pytest.importorskip("accelerate")
    for make in (layer, lambda: salience.BiMamba(D).eval(), lambda: salience.BiMamba(D, form="hydra").eval()):
        torch.manual_seed(0)
        whole, x = make(), torch.randn(2, 9, D)
        wanted = whole(x)
        away = accelerate.cpu_offload(copy.deepcopy(whole))
        assert all(parameter.is_meta for parameter in away.parameters())
        mask = torch.rand(2, 9) > 0.3
        torch.testing.assert_close(away(x), wanted, **NEAR)
        torch.testing.assert_close(away(x, mask=mask), whole(x, mask=mask), **NEAR)
        if hasattr(away, "init_state"):
            state = away.init_state(2)
            assert not state.conv.is_meta
            steps = torch.stack([away.step(x[:, t], state) for t in range(9)], dim=1)
            torch.testing.assert_close(steps, wanted, **NEAR)
        assert all(parameter.is_meta for parameter in away.parameters())


def test_counting_operations_changes_no_path() -> None:
    layer = nn.Linear(4, 4)
    with FlopCounterMode(display=False):
        assert is_plain(layer)
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: output + 1)
    try:
        assert not is_plain(layer)
    finally:
        handle.remove()
