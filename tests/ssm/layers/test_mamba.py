"""The Mamba layer: chunks, steps, padding, packing, and how it starts."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salience import Mamba

# float32 sums in another order differ in the last bits only
NEAR: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def layer() -> Mamba:
    torch.manual_seed(0)
    layer = Mamba(12, d_state=5, d_conv=3, dt_rank=3)
    with torch.no_grad():
        for parameter in layer.parameters():  # every one moved from where it starts, so that each counts
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def inputs(rows: int, length: int, *, width: int = 12) -> Tensor:
    return torch.randn(rows, length, width, generator=torch.Generator().manual_seed(length))


MASKS = {
    "left": [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9],
    "right": [[1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 8 + [0]],
    "inner": [[1, 0, 1, 1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1, 0, 0]],
}


@pytest.fixture(params=MASKS)
def mask(request: pytest.FixtureRequest) -> Tensor:
    return torch.tensor(MASKS[request.param]).bool()


def plainly(layer: Mamba, x: Tensor) -> Tensor:
    """The block as the paper has it, one step after another, for one row (L, d_model)."""
    E, N, R = layer.d_inner, layer.d_state, layer.dt_proj.in_features
    u, z = layer.in_proj(x).chunk(2, -1)
    padded = F.pad(u.T, (layer.d_conv - 1, 0))
    u = F.silu(F.conv1d(padded[None], layer.conv1d.weight, layer.conv1d.bias, groups=E)[0].T)
    low, B, C = layer.x_proj(u).split([R, N, N], -1)
    dt, A = F.softplus(layer.dt_proj(low)), -layer.A_log.exp()
    h, ys = x.new_zeros(E, N), []
    for t in range(len(x)):
        h = torch.exp(dt[t, :, None] * A) * h + dt[t, :, None] * B[t] * u[t, :, None]
        ys.append(h @ C[t] + layer.D * u[t])
    return layer.out_proj(torch.stack(ys) * F.silu(z))


def test_it_is_the_papers_block_gradients_too(layer: Mamba) -> None:
    x = inputs(1, 11)
    ours = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    theirs = torch.autograd.grad(plainly(layer, x[0]).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(layer(x)[0], plainly(layer, x[0]), **NEAR)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))  # sums over eleven steps


@pytest.mark.parametrize("cuts", [[4, 5], [1, 1, 7], [1] * 9])
def test_chunks_with_a_state_are_the_whole(layer: Mamba, cuts: list[int]) -> None:
    x, state, ys = inputs(2, 9), None, []
    for chunk in x.split(cuts, 1):
        y, state = layer(chunk, state=state, return_state=True)
        ys.append(y)
    whole, last = layer(x, return_state=True)
    torch.testing.assert_close(torch.cat(ys, 1), whole, **NEAR)
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, **NEAR)


def test_steps_are_the_whole_and_move_the_state_in_place(layer: Mamba) -> None:
    x, state = inputs(2, 9), layer.init_state(2)
    places = [part.data_ptr() for part in state]
    ys = torch.stack([layer.step(x[:, t], state) for t in range(9)], 1)
    whole, last = layer(x, return_state=True)
    torch.testing.assert_close(ys, whole, **NEAR)
    torch.testing.assert_close(state.ssm, last.ssm, **NEAR)
    torch.testing.assert_close(state.conv, last.conv, **NEAR)
    assert [part.data_ptr() for part in state] == places


class Wrapped(torch.nn.Module):
    """A linear layer with something added, as an adapter is."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        self.base, self.weight, self.bias = base, base.weight, base.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        return y + 0.1


def test_steps_are_one_kernel_and_call_what_is_wrapped(layer: Mamba) -> None:
    x, state = inputs(2, 3), layer.init_state(2)
    u, z = layer.in_proj(x[:, 0]).detach().chunk(2, dim=-1)
    with torch.no_grad():
        assert layer._fused_step(u, z, layer.init_state(2)) is not None
    for name in ("in_proj", "x_proj", "out_proj"):
        setattr(layer, name, Wrapped(getattr(layer, name)))
    ys = torch.stack([layer.step(x[:, t], state) for t in range(3)], 1)
    torch.testing.assert_close(ys, layer(x), **NEAR)


def test_gradients_flow_through_the_carried_state(layer: Mamba) -> None:
    x = inputs(1, 8).requires_grad_()
    first, state = layer(x[:, :5], return_state=True)
    later = layer(x[:, 5:], state=state)
    (chunked,) = torch.autograd.grad(torch.cat([first, later], 1).square().sum(), x)
    (whole,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(chunked, whole, **NEAR)


def test_padded_rows_are_the_rows_alone(layer: Mamba, mask: Tensor) -> None:
    x = inputs(2, 9)
    y, state = layer(x, mask=mask, return_state=True)
    for row in range(2):
        alone, last = layer(x[row : row + 1, mask[row]], return_state=True)
        torch.testing.assert_close(y[row, mask[row]], alone[0], **NEAR)
        torch.testing.assert_close(state.ssm[row], last.ssm[0], **NEAR)
        torch.testing.assert_close(state.conv[row], last.conv[0], **NEAR)


def test_packed_sequences_are_separate(layer: Mamba) -> None:
    x, seq = inputs(1, 9), torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2]])
    packed = layer(x, seq_idx=seq)[0]
    apart = torch.cat([layer(x[:, seq[0] == i])[0] for i in range(3)])
    torch.testing.assert_close(packed, apart, **NEAR)


def test_reverse_is_flip_run_flip(layer: Mamba) -> None:
    x = inputs(2, 9)
    torch.testing.assert_close(layer(x, reverse=True), layer(x.flip(1)).flip(1), **NEAR)


def test_it_starts_as_published() -> None:
    torch.manual_seed(0)
    layer = Mamba(64)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "A_log": (128, 16), "D": (128,), "in_proj.weight": (256, 64), "conv1d.weight": (128, 1, 4),
        "conv1d.bias": (128,), "x_proj.weight": (36, 128), "dt_proj.weight": (128, 4), "dt_proj.bias": (128,),
        "out_proj.weight": (64, 128),
    }  # fmt: skip
    torch.testing.assert_close(layer.A_log[7].exp(), torch.arange(1.0, 17.0))
    assert bool((layer.D == 1).all())
    dt = F.softplus(layer.dt_proj.bias.detach())
    assert float(dt.min()) >= 1e-3 * 0.999 and float(dt.max()) <= 0.1 * 1.001  # rounding of softplus and its inverse
    log = dt.log()
    middle = math.log(1e-2)  # of a log-uniform draw; 128 draws stray by .12 at most at three standard errors of .36
    assert abs(float(log.mean()) - middle) < 0.4
    assert float(layer.dt_proj.weight.detach().abs().max()) <= 4**-0.5


def test_copies_and_pickles_are_the_same(layer: Mamba) -> None:
    x = inputs(1, 7)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


def test_half_precision_stays_near(layer: Mamba) -> None:
    x = inputs(2, 9)
    low = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), layer(x), rtol=0.1, atol=0.05)  # eight bits a product, a few in a row


@pytest.mark.slow
def test_it_compiles_as_one_graph(layer: Mamba) -> None:
    x = inputs(2, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    torch.testing.assert_close(y, layer(x), **NEAR)
    y.square().sum().backward()
    got = layer.A_log.grad
    layer.zero_grad()
    layer(x).square().sum().backward()
    torch.testing.assert_close(got, layer.A_log.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"d_model": 0}, "d_model must be a whole number of at least 1, not 0"),
        ({"d_model": 8, "d_conv": 9}, "d_conv must be a whole number from 2 to 8, not 9"),
        ({"d_model": 8, "dt_rank": "half"}, "dt_rank must be a whole number"),
        ({"d_model": 8, "dt_min": 1.0}, "dt_min and dt_max must be"),
    ],
)
def test_wrong_sizes_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Mamba(**options)


def test_wrong_inputs_are_told(layer: Mamba) -> None:
    for x in (inputs(2, 9, width=11), inputs(2, 9)[0], inputs(2, 9)[:, :0]):
        with pytest.raises(ValueError, match=r"x must be \(B, L, 12\)"):
            layer(x)
    with pytest.raises(ValueError, match="mask"):
        layer(inputs(2, 9), mask=torch.ones(2, 8).bool())
