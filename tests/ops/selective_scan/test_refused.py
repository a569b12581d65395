"""Bad input: one sentence that names the argument, what came and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salience.ops.selective_scan import selective_scan, selective_scan_step

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
    ],
)
def test_step(change: dict[str, Any], said: str) -> None:
    given = STEP | change
    before = given["state"].clone()
    with pytest.raises(ValueError, match=said) as told:
        selective_scan_step(**given)
    assert str(told.value).rstrip(".").count(". ") == 0
    assert given["state"].is_meta or torch.equal(given["state"], before)  # nothing has moved
