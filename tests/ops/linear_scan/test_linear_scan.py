"""The linear scan: every path is the recurrence from its definition, with its gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import salience
from salience.ops.linear_scan import linear_scan, linear_scan_planes

from .cases import Call, error, random_call

# Of the largest value: sums of a few dozen products, in another order than the loop's.
WITHIN = {torch.float32: 5e-6, torch.complex64: 5e-6, torch.float64: 1e-13, torch.complex128: 1e-13}

CASES: dict[str, dict[str, Any]] = {
    "one step": {"length": 1},
    "no initial state": {"initial": False},
    "less than a vector": {"width": 3},
    "two vectors": {"width": 32, "length": 5},
    "factors of every step": {"varying": True},
    "mask": {"mask": True},
    "mask, factors of every step": {"mask": True, "varying": True},
    "packed": {"packed": True},
    "packed, factors of every step": {"packed": True, "varying": True, "initial": False},
    "reverse": {"reverse": True},
    "reverse, masked, packed": {"reverse": True, "mask": True, "packed": True, "varying": True},
    "halves of something wider": {"halves": True, "varying": True},
}


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_it_is_the_recurrence(backend: str, name: str, dtype: torch.dtype) -> None:
    call = random_call(**CASES[name], dtype=dtype)
    want, got = call.double().everything("loop"), poisoned(call).everything(backend)
    assert got.keys() == want.keys()
    for what, x in got.items():
        assert x.dtype == dtype and x.shape == want[what].shape, what
        assert error(x, want[what]) <= WITHIN[dtype], (what, error(x, want[what]))


def poisoned(call: Call) -> Call:
    """NaN where a step is absent: it must reach nothing."""
    if call.mask is None:
        return call
    gone = ~call.mask[..., None]
    a = call.a.masked_fill(gone, float("nan")) if call.a.dim() == 3 else call.a
    return replace(call, a=a, b=call.b.masked_fill(gone, float("nan")))


def test_the_states_gradient_may_be_absent() -> None:
    call = random_call(dtype=torch.complex128, mask=True)
    want = call.everything("loop", dstate=False)
    for what, x in call.everything("cpu", dstate=False).items():
        assert error(x, want[what]) <= 1e-13, what  # as above, float64


def test_two_runs_and_two_threads_give_the_same_bits() -> None:
    call = random_call(batch=8, width=70, dtype=torch.complex64)
    once = call.everything("cpu")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        again = call.everything("cpu")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, again[name]) for name, x in once.items())


def test_a_row_with_no_valid_step_keeps_its_state() -> None:
    call = random_call(batch=1, length=4)
    for backend in ("reference", "cpu"):
        x, state = linear_scan(
            call.a, call.b, initial_state=call.initial_state, mask=torch.zeros(1, 4).bool(), return_state=True,
            backend=backend,
        )  # fmt: skip
        assert not x.any() and torch.equal(state, call.initial_state)


def test_planes_are_the_complex_numbers() -> None:
    call = random_call(dtype=torch.complex64, varying=True)
    planes = [torch.stack([x.real, x.imag], dim=-2) for x in (call.a, call.b, call.initial_state)]
    for backend in ("reference", "cpu"):
        want, last = linear_scan(call.a, call.b, initial_state=call.initial_state, return_state=True, backend=backend)
        x, state = linear_scan_planes(*planes[:2], initial_state=planes[2], backend=backend)
        assert torch.equal(torch.complex(x[:, :, 0], x[:, :, 1]), want)
        assert torch.equal(torch.complex(state[:, 0], state[:, 1]), last)


def test_kinds_are_promoted() -> None:
    a, b = torch.rand(5) / 2, torch.randn(1, 4, 5)
    assert linear_scan(a.to(torch.complex64), b).dtype == torch.complex64
    x, state = linear_scan(a.bfloat16(), b.bfloat16(), return_state=True)
    assert x.dtype == torch.bfloat16 and state.dtype == torch.float32
    want = linear_scan(a.bfloat16().float(), b.bfloat16().float())
    assert torch.equal(x, want.bfloat16())  # rounded once, at the end


def test_which_path_is_told() -> None:
    b = torch.zeros(1, 1, 1, dtype=torch.complex64)
    assert salience.explain("linear_scan", b).backend == "cpu"
    assert salience.explain("linear_scan", b.to("meta")).backend == "reference"


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    call = random_call(dtype=torch.float32, mask=True)
    planes = [torch.stack([x, x / 3], dim=-2) for x in (call.a, call.b)]
    compiled = torch.compile(linear_scan_planes, fullgraph=True, backend="aot_eager")
    found = []
    for scan in (linear_scan_planes, compiled):
        leaves = [x.clone().requires_grad_() for x in planes]
        x, _ = scan(*leaves, mask=call.mask)
        found.append([x.detach(), *torch.autograd.grad(x.square().sum(), leaves)])
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"b": torch.zeros(2, 0, 3)}, r"b must be \(B, L, D\) with L at least 1"),
        ({"a": torch.zeros(4)}, r"a must be \(3,\) or \(2, 5, 3\) as b, not \(4,\)"),
        ({"a": torch.zeros(3).long()}, "a must be floating point or complex, not torch.int64"),
        ({"initial_state": torch.zeros(3)}, r"initial_state must be \(2, 3\), not \(3,\)"),
        ({"mask": torch.ones(2, 4).bool()}, r"mask must be \(B, L\) = \(2, 5\)"),
        ({"mask": torch.ones(2, 5)}, "mask must be bool, not torch.float32"),
        ({"seq_idx": torch.ones(2, 5)}, "seq_idx must be integer, not torch.float32"),
    ],
)
def test_wrong_arguments_are_told(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        linear_scan(**({"a": torch.zeros(3), "b": torch.zeros(2, 5, 3)} | changed))


def test_wrong_planes_are_told() -> None:
    with pytest.raises(ValueError, match="1 or 2 planes"):
        linear_scan_planes(torch.zeros(3, 4), torch.zeros(2, 5, 3, 4))
    with pytest.raises(ValueError, match="b must be floating point"):
        linear_scan_planes(torch.zeros(1, 4), torch.zeros(2, 5, 1, 4, dtype=torch.complex64))
