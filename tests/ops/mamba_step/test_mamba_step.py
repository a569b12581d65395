"""The fused step of a Mamba block against its operators, one after another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.ops.causal_conv1d import causal_conv1d_step
from salience.ops.mamba_step import mamba_step
from salience.ops.selective_scan import selective_scan_step


def given(rows: int, E: int, N: int, R: int, W: int, dtype: torch.dtype) -> dict[str, Any]:
    """Everything that a step takes: states with a past, a window whose channels lie apart, x and z in one tensor."""
    g = torch.Generator().manual_seed(E + N + R)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).to(dtype)

    x, z = normal(rows, 2 * E).chunk(2, -1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "conv_state": normal(rows, E, W - 1).mT, "state": normal(rows, E, N).to(wide), "x": x, "z": z,
        "conv_weight": normal(E, W), "conv_bias": normal(E), "x_weight": normal(R + 2 * N, E) / E**0.5,
        "dt_weight": normal(E, R) / R**0.5, "dt_bias": normal(E), "A_log": 0.5 * normal(E, N), "D": normal(E),
    }  # fmt: skip


def one_by_one(p: dict[str, Any]) -> Tensor:
    """The reference: in float64, with the states moved on in place."""
    window, N, R = p["conv_state"], p["state"].shape[2], p["dt_weight"].shape[1]
    u = causal_conv1d_step(window, p["x"], p["conv_weight"], p["conv_bias"], activation="silu", backend="reference")
    low, B, C = F.linear(u, p["x_weight"]).split([R, N, N], -1)
    return selective_scan_step(
        p["state"], u, F.linear(low, p["dt_weight"]), -p["A_log"].exp(), B, C, p["D"], z=p["z"], dt_bias=p["dt_bias"],
        dt_softplus=True, backend="reference",
    )  # fmt: skip


# (rows, E, N, R, W): one of each; tails of every length; more states than a vector has lanes; a published layer's
SHAPES = [(1, 1, 1, 1, 2), (2, 19, 5, 3, 3), (3, 33, 21, 9, 8), (1, 96, 16, 48, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_it_is_the_operators_one_after_another(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
    ours = given(*shape, dtype)
    theirs = {name: tensor.double().clone() for name, tensor in ours.items()}
    y = mamba_step(**ours)
    wanted = one_by_one(theirs)
    assert y is not None and y.dtype == dtype
    # sums of up to 96 terms in float32 (float64), and one rounding of y in half precision
    near = 1e-12 if dtype == torch.float64 else 2e-5
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-10}.get(dtype, near)
    torch.testing.assert_close(y.double(), wanted, rtol=rounding, atol=near * float(wanted.abs().max()))
    torch.testing.assert_close(ours["state"].double(), theirs["state"], rtol=near, atol=near)
    assert torch.equal(ours["conv_state"].double(), theirs["conv_state"])


def test_without_a_bias_in_the_convolution() -> None:
    ours = given(1, 19, 5, 3, 4, torch.float32)
    theirs = {name: tensor.clone() for name, tensor in ours.items()}
    ours["conv_bias"], theirs["conv_bias"] = None, torch.zeros(19)
    torch.testing.assert_close(mamba_step(**ours), one_by_one(theirs), rtol=1e-5, atol=1e-5)  # float32 sums


def test_where_it_does_not_apply_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    p = given(2, 19, 5, 3, 4, torch.float32)
    before = [p[name].clone() for name in ("conv_state", "state")]
    other: list[dict[str, Any]] = [
        {"backend": "reference"},
        {"conv_state": p["conv_state"].double()},
        {"state": p["state"].double()},
        {"state": p["state"].mT.contiguous().mT},
        {"x_weight": p["x_weight"].mT.contiguous().mT},
        {"x": p["x"].to("meta")},
        {"D": nn.Parameter(p["D"])},  # wants its gradient
        given(9, 19, 5, 3, 4, torch.float32),
    ]
    assert all(mamba_step(**p | each) is None for each in other)
    monkeypatch.setenv("SALIENCE_BACKEND", "reference")
    assert mamba_step(**p) is None
    assert all(torch.equal(p[name], was) for name, was in zip(("conv_state", "state"), before, strict=True))
