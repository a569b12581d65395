"""S4D: convolution and recurrence agree, in chunks, padded, backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salience.ssm.layers.hippo import INITS
from salience.ssm.layers.s4d import S4D

from . import linear_layers as check


@pytest.fixture(params=INITS)
def layer(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return check.moved(S4D(check.WIDTH, d_state=8, init=request.param))


def test_the_convolution_is_the_recurrence(layer: S4D) -> None:
    check.whole_is_the_recurrence(layer)


def test_the_kernel_is_its_formula(layer: S4D) -> None:
    n = torch.arange(40)
    A = torch.complex(-layer.A_re_log.exp(), torch.zeros_like(layer.A_re_log) if layer.A_im is None else layer.A_im)
    C = layer.C[0].to(A.dtype) if layer.A_im is None else torch.complex(layer.C[0], layer.C[1])
    z = torch.exp(layer.log_dt.exp()[:, None] * A)
    factor = 1 if layer.A_im is None else 2
    wanted = factor * (C * (z - 1) / A)[..., None] * z[..., None] ** n
    torch.testing.assert_close(layer.kernel(40, torch.float64), wanted.sum(1).real, **check.NEAR)


def test_chunks_are_the_whole(layer: S4D) -> None:
    check.chunks_are_the_whole(layer)
    check.gradients_flow_through_the_state(layer)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", check.MASKS)
def test_padded_rows_are_the_rows_alone(layer: S4D, kind: str, reverse: bool) -> None:
    check.padded_rows_are_the_rows_alone(layer, kind, reverse)


def test_reverse(layer: S4D) -> None:
    check.reverse_is_flip_run_flip(layer)


def test_gradients(layer: S4D) -> None:
    check.gradients_are_those_of_the_recurrence(layer)


@pytest.mark.parametrize("init", INITS)
def test_float32(init: str) -> None:
    torch.manual_seed(0)
    check.float32_keeps_to_the_recurrence(S4D(check.WIDTH, init=init))


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    torch.manual_seed(0)
    check.compiles_as_one_graph(check.moved(S4D(check.WIDTH, d_state=4)))


def test_copies_and_groups(layer: S4D) -> None:
    check.copies_pickles_and_casts(layer)
    check.takes_and_clones(layer)
    own = {"log_dt", "A_re_log"} | (set() if layer.A_im is None else {"A_im"})
    check.ssm_parameters_have_their_group(layer, own)


def test_it_starts_as_published() -> None:
    torch.manual_seed(0)
    layer = S4D(64, d_state=16, dt_min=1e-3, dt_max=0.1)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {"D": (64,), "out_proj.weight": (128, 64), "out_proj.bias": (128,), "log_dt": (64,),
                      "A_re_log": (64, 8), "A_im": (64, 8), "C": (2, 64, 8)}  # fmt: skip
    dt = layer.log_dt.detach().exp()
    assert float(dt.min()) >= 1e-3 * 0.999 and float(dt.max()) <= 0.1 * 1.001  # rounding of exp and log


def test_what_makes_no_sense_is_told() -> None:
    for options, told in (
        ({"init": "log"}, "init must be one of"),
        ({"d_state": 5}, "d_state must be an even number"),
        ({"dt_min": 1.0}, "dt_min and dt_max must be"),
    ):
        with pytest.raises(ValueError, match=told):
            S4D(4, **options)
    layer, x = S4D(4, d_state=4), torch.zeros(2, 5, 4)
    for options, told in (
        ({"mask": torch.ones(2, 4).bool()}, "mask must be bool"),
        ({"seq_idx": torch.zeros(2, 5).long()}, "seq_idx must be None"),
        ({"state": layer.init_state(3)}, "state must hold planes of"),
    ):
        with pytest.raises(ValueError, match=told):
            layer(x, **options)
    with pytest.raises(ValueError, match=r"x must be \(B, L, 4\)"):
        layer(torch.zeros(2, 5, 3))
