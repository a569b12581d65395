"""Bad input: one sentence that names the argument, what came and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salience.ops.causal_conv1d import causal_conv1d, causal_conv1d_step

X, WEIGHT = torch.zeros(2, 5, 3), torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": X[0]}, r"x must be \(B, L, D\) with L at least 1, not \(5, 3\)"),
        ({"x": X[:, :0]}, r"x must be .* not \(2, 0, 3\)"),
        ({"x": X.long()}, "x must be floating point, not torch.int64"),
        ({"weight": WEIGHT.T}, r"weight must be \(D, W\) with D = 3 and W from 2 to 8, not \(4, 3\)"),
        ({"weight": WEIGHT[:, :1]}, r"weight must be .* not \(3, 1\)"),
        ({"weight": torch.zeros(3, 9)}, r"weight must be .* not \(3, 9\)"),
        ({"weight": WEIGHT[:, None]}, r"weight must be .* not \(3, 1, 4\)"),
        ({"weight": WEIGHT.int()}, "weight must be floating point, not torch.int32"),
        ({"weight": WEIGHT.to("meta")}, "weight must be on cpu as x is, not on meta"),
        ({"bias": torch.zeros(4)}, r"bias must be \(D,\) = \(3,\), not \(4,\)"),
        ({"activation": "relu"}, "activation must be None or 'silu', not 'relu'"),
        ({"initial_state": torch.zeros(2, 4, 3)}, r"initial_state must be .* = \(2, 3, 3\), not \(2, 4, 3\)"),
        ({"mask": torch.ones(5, 2) > 0}, r"mask must be \(B, L\) = \(2, 5\), not \(5, 2\)"),
        ({"mask": torch.ones(2, 5).long()}, "mask must be bool, not torch.int64"),
        ({"seq_idx": torch.ones(2, 5)}, "seq_idx must be integer, not torch.float32"),
        ({"seq_idx": torch.ones(2, 5) > 0}, "seq_idx must be integer, not torch.bool"),
        ({"seq_idx": torch.ones(2, 5, device="meta").long()}, "seq_idx must be on cpu as x is, not on meta"),
        ({"backend": "cuda"}, "backend"),
    ],
)
def test_convolution(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        causal_conv1d(**{"x": X, "weight": WEIGHT, **change})
    assert str(told.value).rstrip(".").count(". ") == 0  # one sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": X}, r"x must be \(B, D\), not \(2, 5, 3\)"),
        ({"state": X}, r"state must be \(B, W - 1, D\) = \(2, 3, 3\), not \(2, 5, 3\)"),
        ({"state": torch.zeros(2, 3, 3).long()}, "state must be floating point, not torch.int64"),
        ({"bias": torch.zeros(4)}, r"bias must be"),
    ],
)
def test_step(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        causal_conv1d_step(**{"state": torch.zeros(2, 3, 3), "x": X[:, 0], "weight": WEIGHT, **change})
