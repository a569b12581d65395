"""The fused path under torch.compile, in threads, in forked children, and without a cache or AVX-512."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from salience.ops.causal_conv1d import causal_conv1d, causal_conv1d_step

from .cases import random_call
from .tolerances import assert_close


def test_compile_in_one_graph() -> None:
    call = random_call(length=20, channels=24, initial=True, mask=True, seq_idx=True).leaves()

    def run(x: Tensor) -> Tensor:
        y, state = causal_conv1d(
            x, call.weight, call.bias, activation="silu", initial_state=call.initial_state, mask=call.mask,
            seq_idx=call.seq_idx, return_state=True,
        )  # fmt: skip
        return (y * y).sum() + state.sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves = [call.x, call.weight, call.bias, call.initial_state]
    got, want = compiled(call.x), run(call.x)
    assert_close(got, want, terms=1000)
    for a, b in zip(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True):
        assert torch.equal(a, b)  # the same kernels


def test_a_step_compiles_in_one_graph() -> None:
    call = random_call(length=1, channels=24, initial=True)
    assert call.initial_state is not None

    def run(state: Tensor, x: Tensor) -> Tensor:
        return causal_conv1d_step(state, x, call.weight, call.bias, activation="silu") + 1

    states = [call.initial_state.clone(), call.initial_state.clone()]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(states[0], call.x[:, 0]), run(states[1], call.x[:, 0]))
    assert torch.equal(*states)


def test_the_operators_keep_their_word() -> None:
    from salience.ops.causal_conv1d.operators import causal_conv1d_fwd

    call = random_call(length=5, initial=True, mask=True).leaves()
    args = (call.x, call.weight, call.bias, call.initial_state, call.mask, None, True, False, "cpu")
    torch.library.opcheck(
        causal_conv1d_fwd, args, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_eight_threads_at_once() -> None:
    calls = [random_call(length=60 + i, channels=70, seed=i) for i in range(8)]
    want = [call.run("cpu")[0] for call in calls]
    start = threading.Barrier(8, timeout=20)

    def many(i: int) -> bool:
        start.wait()
        return all(torch.equal(calls[i].run("cpu")[0], want[i]) for _ in range(20))

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(many, range(8)))


def _child(seed: int, want: Tensor) -> None:
    torch.set_num_threads(2)
    raise SystemExit(0 if torch.equal(random_call(length=50, channels=200, seed=seed).run("cpu")[0], want) else 1)


def test_forked_children() -> None:
    want = random_call(length=50, channels=200, seed=3).run("cpu")[0]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of forking beside threads, as we do here
        child = multiprocessing.get_context("fork").Process(target=_child, args=(3, want))
        child.start()
    child.join(60)
    assert child.exitcode == 0


PROGRAM = """
import torch
from salience.ops.causal_conv1d import causal_conv1d
g = torch.Generator().manual_seed(0)
x, w = torch.randn(2, 40, 37, generator=g).requires_grad_(), torch.randn(37, 4, generator=g).requires_grad_()
found = {}
for backend in ("cpu", "reference"):
    y = causal_conv1d(x, w, activation="silu", backend=backend)
    found[backend] = [y.detach(), *torch.autograd.grad((y * y).sum(), [x, w])]
for a, b in zip(*found.values()):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))  # float32, sums of 80 steps
"""


@pytest.mark.parametrize("cpu", ["generic", "haswell"])
def test_other_machines(cpu: str, tmp_path: Path) -> None:
    features = "+avx2,+fma,+f16c" if cpu == "haswell" else ""
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    blocked = tmp_path / "file"
    blocked.write_text("")  # no folder can be made below a file: nothing is cached
    environment["SALIENCE_CACHE"] = str(blocked / "cache")
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_step_makes_no_graph() -> None:
    call = random_call(initial=True).leaves()
    assert call.initial_state is not None
    y = causal_conv1d_step(call.initial_state.detach().clone(), call.x[:, 0], call.weight, call.bias)
    assert not y.requires_grad
