"""Mamba in both directions: each row as if it were alone, and the two forms as their papers have them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salience import BiMamba
from salience.ops.selective_scan import selective_scan

# float32 sums in another order differ in the last bits only
NEAR: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
MASKS = {
    "left": [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9],
    "right": [[1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 8 + [0]],
    "inner": [[1, 0, 1, 1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1, 0, 0]],
}


@pytest.fixture(params=["vim", "hydra"])
def layer(request: pytest.FixtureRequest) -> BiMamba:
    return build(request.param)


def build(form: str) -> BiMamba:
    torch.manual_seed(0)
    layer = BiMamba(12, form=form, d_state=5, dt_rank=3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def inputs(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 12, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("name", MASKS)
def test_padded_rows_are_the_rows_alone(layer: BiMamba, name: str) -> None:
    x, mask = inputs(2, 9), torch.tensor(MASKS[name]).bool()
    y = layer(x, mask=mask)
    for row in range(2):
        torch.testing.assert_close(y[row, mask[row]], layer(x[row : row + 1, mask[row]])[0], **NEAR)


def test_packed_sequences_are_separate(layer: BiMamba) -> None:
    x, seq = inputs(1, 9), torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2]])
    packed = layer(x, seq_idx=seq)[0]
    torch.testing.assert_close(packed, torch.cat([layer(x[:, seq[0] == i])[0] for i in range(3)]), **NEAR)


def test_every_step_sees_every_other(layer: BiMamba) -> None:
    x = inputs(1, 6).requires_grad_()
    y = layer(x)
    for t in range(6):
        (seen,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        assert bool((seen[0].abs().sum(-1) > 0).all())


def test_every_parameter_learns(layer: BiMamba) -> None:
    layer(inputs(2, 7)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name


def test_vim_is_one_mamba_each_way_on_a_flipped_xz() -> None:
    layer, x = build("vim"), inputs(2, 9)
    xz = layer.in_proj(x)

    def way(xz: Tensor, end: str, A_log: Tensor, D: Tensor) -> Tensor:
        conv, x_proj, dt_proj = (getattr(layer, name + end) for name in ("conv1d", "x_proj", "dt_proj"))
        u, z = xz.chunk(2, -1)
        padded = F.pad(u.transpose(1, 2), (3, 0))
        u = F.silu(F.conv1d(padded, conv.weight, conv.bias, groups=24).transpose(1, 2))
        low, B, C = x_proj(u).split([3, 5, 5], -1)
        y = selective_scan(u, F.softplus(dt_proj(low)), -A_log.exp(), B, C, D, backend="reference")
        return y * F.silu(z)

    there, back = way(xz, "", layer.A_log, layer.D), way(xz.flip(1), "_b", layer.A_b_log, layer.D_b).flip(1)
    torch.testing.assert_close(layer(x), layer.out_proj((there + back) / 2), **NEAR)


def test_hydra_is_a_quasiseparable_matrix() -> None:
    """The matrix itself, built channel by channel: C B products below and above the diagonal, its own on it."""
    layer, x = build("hydra"), inputs(1, 6)
    assert layer.conv1d.kernel_size == (7,)
    u, z = layer.in_proj(x[0]).chunk(2, -1)  # (L, E)
    u = F.silu(F.conv1d(u.T[None], layer.conv1d.weight, layer.conv1d.bias, padding=3, groups=24)[0].T)
    A, matrix = -layer.A_log.exp(), torch.zeros(24, 6, 6)
    for upper, one in enumerate(layer.x_proj(u).chunk(2, -1)):
        low, B, C = one.split([3, 5, 5], -1)
        dt = F.softplus(layer.dt_proj(low))  # (L, E)
        order = list(reversed(range(6))) if upper else list(range(6))
        for n, i in enumerate(order[1:]):  # row i reads what the step before it in this direction had gathered
            for m in range(n + 1):
                between = sum((dt[order[k]] for k in range(m + 1, n + 1)), torch.zeros(24))
                decay = torch.exp(between[:, None] * A)  # (E, N)
                j = order[m]
                matrix[:, i, j] += (decay * C[order[n]] * B[j]).sum(-1) * dt[j]
    y = torch.einsum("eij,je->ie", matrix, u) + u * (layer.fc_D(u) + layer.D)
    torch.testing.assert_close(layer(x)[0], layer.out_proj(y * F.silu(z)), **NEAR)


def test_copies_and_pickles_are_the_same(layer: BiMamba) -> None:
    x = inputs(1, 7)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(twin) is type(layer)
        assert torch.equal(twin(x), layer(x))


def test_wrong_options_are_told() -> None:
    with pytest.raises(ValueError, match='form must be "vim" or "hydra", not \'mixed\''):
        BiMamba(12, form="mixed")
    with pytest.raises(ValueError, match="d_conv must be an odd number from 3 to 15, not 4"):
        BiMamba(12, form="hydra", d_conv=4)
    with pytest.raises(ValueError, match="d_conv must be a whole number from 2 to 8, not 9"):
        BiMamba(12, d_conv=9)
