"""Bad input: one sentence that names the argument, what came and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.func import grad, jvp, vmap

from salience.ops.selective_scan import selective_scan, selective_scan_step
from salience.ssm import compat

U, A, B = torch.zeros(2, 5, 6), -torch.ones(6, 3), torch.zeros(2, 5, 3)
GROUPED = torch.zeros(2, 5, 2, 3)
SCAN: dict[str, Any] = {"u": U, "dt": U, "A": A, "B": B, "C": B}
STEP: dict[str, Any] = {"state": torch.zeros(2, 6, 3), "u": U[:, 0], "dt": U[:, 0], "A": A, "B": B[:, 0], "C": B[:, 0]}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"u": U[0]}, r"u must be \(B, L, D\) with L at least 1, not \(5, 6\)"),
    ({"u": U[:, :0], "dt": U[:, :0], "B": B[:, :0], "C": B[:, :0]}, r"u must be .* L at least 1, not \(2, 0, 6\)"),
    ({"u": U.long()}, "u must be floating point, not torch.int64"),
    ({"dt": U[:, :4]}, r"dt must be \(B, L, D\) = \(2, 5, 6\) as u, not \(2, 4, 6\)"),
    ({"dt": U.int()}, "dt must be floating point, not torch.int32"),
    ({"dt": U.to("meta")}, "dt must be on cpu as u is, not on meta"),
    ({"z": U[..., :3]}, r"z must be \(B, L, D\) = \(2, 5, 6\) as u, not \(2, 5, 3\)"),
    ({"z": U.bool()}, "z must be floating point, not torch.bool"),
    ({"A": A.T}, r"A must be \(D, N\) with D = 6 and N at least 1, not \(3, 6\)"),
    ({"A": A[:, :0]}, r"A must be .* not \(6, 0\)"),
    ({"A": A[0]}, r"A must be .* not \(3,\)"),
    ({"A": A.long()}, "A must be floating point, not torch.int64"),
    ({"A": A.to("meta")}, "A must be on cpu as u is, not on meta"),
    ({"A": -A}, r"A must not be positive \(it is -exp\(A_log\)\), but its largest entry is 1"),
    ({"dt": U - 0.5}, r"dt must not be negative without dt_softplus, but its smallest entry is -0\.5"),
    ({"B": B.transpose(1, 2)}, r"B must be \(B, L, N\) or \(B, L, G, N\) = \(2, 5, 3\)"),
    ({"C": B[:1]}, r"C must be \(B, L, N\) or \(B, L, G, N\) = \(2, 5, 3\)"),
    ({"B": torch.zeros(2, 5, 2)}, r"B must be .* = \(2, 5, 3\)"),
    ({"B": B.long()}, "B must be floating point, not torch.int64"),
    ({"C": B.to("meta")}, "C must be on cpu as u is, not on meta"),
    ({"B": GROUPED}, "B and C must have the same number of groups, a divisor of D = 6, not 2 and 1"),
    ({"B": torch.zeros(2, 5, 4, 3), "C": torch.zeros(2, 5, 4, 3)}, "a divisor of D = 6, not 4 and 4"),
    ({"D": torch.zeros(5)}, r"D must be \(D,\) = \(6,\), not \(5,\)"),
    ({"D": torch.zeros(6).long()}, "D must be floating point, not torch.int64"),
    ({"dt_bias": torch.zeros(6, 1)}, r"dt_bias must be \(D,\) = \(6,\), not \(6, 1\)"),
    ({"initial_state": torch.zeros(2, 3, 6)}, r"initial_state must be \(B, D, N\) = \(2, 6, 3\), not \(2, 3, 6\)"),
    ({"initial_state": torch.zeros(2, 6, 3).int()}, "initial_state must be floating point, not torch.int32"),
    ({"initial_state": torch.zeros(2, 6, 3).to("meta")}, "initial_state must be on cpu as u is, not on meta"),
    ({"mask": torch.ones(5, 2) > 0}, r"mask must be \(B, L\) = \(2, 5\), not \(5, 2\)"),
    ({"mask": torch.ones(2, 5)}, "mask must be bool, not torch.float32"),
    ({"mask": (torch.ones(2, 5) > 0).to("meta")}, "mask must be on cpu as u is, not on meta"),
    ({"seq_idx": torch.ones(2, 5)}, "seq_idx must be integer, not torch.float32"),
    ({"seq_idx": torch.ones(2, 4).long()}, r"seq_idx must be \(B, L\) = \(2, 5\), not \(2, 4\)"),
    ({"backend": "cuda"}, "backend must be 'auto', 'reference', 'cpu', 'triton', not 'cuda'"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[f"{next(iter(c))}-{i}" for i, (c, _) in enumerate(REFUSED)])
def test_scan(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        selective_scan(**SCAN | change)
    assert str(told.value).rstrip(".").count(". ") == 0  # one sentence


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_one_positive_entry_is_enough_and_zero_is_allowed(backend: str) -> None:
    bad = A.clone()
    bad[3, 1] = 0.25
    with pytest.raises(ValueError, match=r"largest entry is 0\.25"):
        selective_scan(**SCAN | {"A": bad.requires_grad_()}, backend=backend)
    assert selective_scan(**SCAN | {"A": A * 0}, backend=backend).shape == U.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_one_negative_step_is_enough_and_zero_is_allowed(backend: str, dtype: torch.dtype) -> None:
    u, A = torch.zeros(2, 70, 21, dtype=dtype), -torch.ones(21, 3)
    B, dt, mask = u[..., :3], torch.ones_like(u), torch.ones(2, 70, dtype=torch.bool)
    dt[1, 66, 20], mask[1, 66] = -0.25, False
    run = lambda dt, **options: selective_scan(u, dt, A, B, B, backend=backend, **options)  # noqa: E731
    with pytest.raises(ValueError, match=r"dt must not be negative without dt_softplus, but its .* is -0\.25"):
        run(dt.requires_grad_())
    with pytest.raises(ValueError, match=r"dt \+ dt_bias must not be negative without dt_softplus"):
        run(dt.abs(), dt_bias=torch.full((21,), -0.5))
    for dt_, options in [
        (dt, {"mask": mask}), (dt, {"dt_softplus": True}), (dt, {"dt_bias": torch.full((21,), 0.25)}), (-0 * dt, {}),
    ]:  # fmt: skip
        assert run(dt_, **options).shape == u.shape


# torch's own, where it first takes a derivative in forward mode
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_signs_are_seen_through_transformations(backend: str) -> None:
    dt = torch.stack([U, U - 0.5])
    run = lambda dt, mask=None: selective_scan(U, dt, A, B, B, mask=mask, backend=backend)  # noqa: E731
    for transformed in (
        lambda: vmap(run)(dt), lambda: jvp(run, (dt[1],), (dt[1],)), lambda: grad(lambda x: run(x).sum())(dt[1])
    ):  # fmt: skip
        with pytest.raises(ValueError, match="dt must not be negative"):
            transformed()
    with pytest.raises(ValueError, match="A must not be positive"):
        vmap(lambda A: selective_scan(U, U, A, B, B, backend=backend))(torch.stack([A, -A]))
    assert vmap(run)(dt, torch.zeros(2, 2, 5, dtype=torch.bool)).shape == dt.shape


def test_a_negative_step_inside_a_compiled_function() -> None:
    dt = U - 0.5
    torch._dynamo.reset()
    for run in (
        lambda dt: selective_scan(U, dt, A, B, B),
        lambda dt: selective_scan_step(torch.zeros(2, 6, 3), U[:, 0], dt[:, 0], A, B[:, 0], B[:, 0]),
    ):
        # torch.compile leaves gradients off where a part without them is left by an exception
        with torch.no_grad(), pytest.raises(ValueError, match="dt must not be negative"):
            torch.compile(run, backend="eager")(dt)


def test_the_packages_names_refuse_it_too() -> None:
    with pytest.raises(ValueError, match="dt must not be negative"):
        compat.selective_scan_fn(U.mT, U.mT - 0.5, A, B.mT, B.mT)
    with pytest.raises(ValueError, match="dt must not be negative"):
        compat.selective_state_update(torch.zeros(2, 6, 3), U[:, 0], U[:, 0] - 0.5, A, B[:, 0], B[:, 0])


def test_a_backend_that_cannot_run() -> None:
    with pytest.raises(
        RuntimeError, match=r"the backend 'cpu' cannot run selective_scan here: it takes float32.*complex"
    ):
        selective_scan(**SCAN | {"A": A.to(torch.complex64)}, backend="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"u": U}, r"u must be \(B, D\), not \(2, 5, 6\)"),
        ({"u": U[:, 0].long()}, "u must be floating point, not torch.int64"),
        ({"dt": U[:1, 0]}, r"dt must be \(B, D\) = \(2, 6\) as u, not \(1, 6\)"),
        ({"state": torch.zeros(2, 3, 6)}, r"state must be \(B, D, N\) = \(2, 6, 3\), not \(2, 3, 6\)"),
        ({"state": torch.zeros(2, 6, 3).long()}, "state must be floating point, not torch.int64"),
        ({"state": torch.zeros(2, 6, 3).to("meta")}, "state must be on cpu as u is, not on meta"),
        ({"B": B[0, 0]}, r"B must be \(B, N\) or \(B, G, N\) = \(2, 3\)"),
        ({"C": B[:, 0].int()}, "C must be floating point, not torch.int32"),
        ({"D": torch.zeros(5)}, r"D must be \(D,\) = \(6,\), not \(5,\)"),
        ({"z": U}, r"z must be \(B, D\) = \(2, 6\) as u"),
        ({"dt": U[:, 0] - 0.5}, r"dt must not be negative without dt_softplus, but its smallest entry is -0\.5"),
        ({"dt_bias": torch.zeros(6) - 0.5}, r"dt \+ dt_bias must not be negative without dt_softplus"),
    ],
)
def test_step(change: dict[str, Any], said: str) -> None:
    given = STEP | change
    before = given["state"].clone()
    with pytest.raises(ValueError, match=said) as told:
        selective_scan_step(**given)
    assert str(told.value).rstrip(".").count(". ") == 0
    assert given["state"].is_meta or torch.equal(given["state"], before)  # nothing has moved
