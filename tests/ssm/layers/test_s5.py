"""S5: its scan is a loop over steps, in chunks, padded, packed, backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from salience.ssm.layers.hippo import normal_part
from salience.ssm.layers.s5 import S5

from . import linear_layers as check


@pytest.fixture(params=["cpu", "reference"])
def layer(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return check.moved(S5(check.WIDTH, d_state=8, blocks=2, backend=request.param))


def test_the_scan_is_a_loop_over_complex_states(layer: S5) -> None:
    x = check.inputs(1, 12)
    A = torch.complex(-layer.A_re_log.exp(), layer.A_im)
    a = torch.exp(layer.log_dt.exp() * A)
    B, C = torch.complex(layer.B[0], layer.B[1]), torch.complex(layer.C[0], layer.C[1])
    h, ys = torch.zeros_like(A), []
    for u in x[0]:
        h = a * h + ((a - 1) / A)[:, None] * B @ u.to(A.dtype)
        ys.append(2 * (C @ h).real + layer.D * u)
    wanted = F.glu(layer.out_proj(F.gelu(torch.stack(ys))), dim=-1)
    torch.testing.assert_close(layer(x)[0], wanted, **check.NEAR)


def test_whole_and_steps(layer: S5) -> None:
    check.whole_is_the_recurrence(layer)


def test_chunks_are_the_whole(layer: S5) -> None:
    check.chunks_are_the_whole(layer)
    check.gradients_flow_through_the_state(layer)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", check.MASKS)
def test_padded_rows_are_the_rows_alone(layer: S5, kind: str, reverse: bool) -> None:
    check.padded_rows_are_the_rows_alone(layer, kind, reverse)


def test_packed_sequences_are_separate(layer: S5) -> None:
    x, seq = check.inputs(1, 9), torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2]])
    for reverse in (False, True):
        apart = torch.cat([layer(x[:, seq[0] == i], reverse=reverse)[0] for i in range(3)])
        torch.testing.assert_close(layer(x, seq_idx=seq, reverse=reverse)[0], apart, **check.NEAR)


def test_reverse(layer: S5) -> None:
    check.reverse_is_flip_run_flip(layer)


def test_gradients(layer: S5) -> None:
    check.gradients_are_those_of_the_recurrence(layer)


def test_float32() -> None:
    torch.manual_seed(0)
    check.float32_keeps_to_the_recurrence(S5(check.WIDTH))


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    torch.manual_seed(0)
    check.compiles_as_one_graph(check.moved(S5(check.WIDTH, d_state=4)))


def test_copies_and_groups(layer: S5) -> None:
    check.copies_pickles_and_casts(layer)
    check.takes_and_clones(layer)
    check.ssm_parameters_have_their_group(layer, {"log_dt", "A_re_log", "A_im", "B"})


def test_it_starts_as_published() -> None:
    torch.manual_seed(0)
    layer = S5(16, d_state=24, blocks=3)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {"D": (16,), "out_proj.weight": (32, 16), "out_proj.bias": (32,), "log_dt": (12,),
                      "A_re_log": (12,), "A_im": (12,), "B": (2, 12, 16), "C": (2, 16, 12)}  # fmt: skip
    torch.testing.assert_close(layer.A_im.detach(), normal_part(8)[0].imag.float().repeat(3))
    torch.testing.assert_close(layer.A_re_log.detach().exp(), torch.full((12,), 0.5))


def test_what_makes_no_sense_is_told() -> None:
    for blocks in (0, 3, 8):
        with pytest.raises(ValueError, match="blocks must divide d_state = 8 into even numbers of states"):
            S5(4, d_state=8, blocks=blocks)
    with pytest.raises(ValueError, match="seq_idx must be integer"):
        S5(4, d_state=4)(torch.zeros(1, 3, 4), seq_idx=torch.zeros(1, 3))
