"""The fused scan under torch.compile, in threads, in forked workers, in processes that race, on other machines."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from salience.ops.selective_scan import selective_scan, selective_scan_step

from .cpu_cases import LEAVES, error, random_call


def test_compile_in_one_graph() -> None:
    call = random_call(length=20, mask=True, seq_idx=True, reverse=True)
    call = replace(call, **{name: getattr(call, name).requires_grad_() for name in LEAVES})

    def run(u: Tensor) -> Tensor:
        y, state = selective_scan(**(vars(call) | {"u": u}), return_state=True)
        return (y * y).sum() + state.sum()

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves = [getattr(call, name) for name in LEAVES]
    got, want = compiled(call.u), run(call.u)
    for a, b in zip(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True):
        assert torch.equal(a, b)  # the same kernels


def test_a_step_compiles_in_one_graph() -> None:
    call = random_call(length=1)
    assert call.initial_state is not None and call.z is not None

    def run(state: Tensor, u: Tensor) -> Tensor:
        return selective_scan_step(state, u, call.dt[:, 0], call.A, call.B[:, 0], call.C[:, 0], dt_softplus=True) + 1

    states = [call.initial_state.clone(), call.initial_state.clone()]
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(states[0], call.u[:, 0]), run(states[1], call.u[:, 0]))
    assert torch.equal(*states)


def test_the_operator_keeps_its_word() -> None:
    from salience.ops.selective_scan.operators import selective_scan_fwd

    call = random_call(length=5, channels=3, mask=True)
    tensors = [None if x is None else x.requires_grad_() for x in (getattr(call, name) for name in LEAVES)]
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(selective_scan_fwd, (*tensors, call.mask, None, True, False, "cpu"), test_utils=tests)


def test_eight_threads_at_once() -> None:
    calls = [random_call(length=60 + i, channels=70, seed=i) for i in range(8)]
    want = [call.everything("cpu") for call in calls]
    start = threading.Barrier(8, timeout=20)

    def many(i: int) -> bool:
        start.wait()
        found = (calls[i].everything("cpu") for _ in range(5))
        return all(torch.equal(x, want[i][name]) for each in found for name, x in each.items())

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(many, range(8)))


class Scanned(Dataset[Tensor]):
    """Outputs and gradients of random calls, computed where they are asked for."""

    def __init__(self) -> None:
        self.calls = [random_call(length=50, channels=200, seed=i) for i in range(4)]

    def __len__(self) -> int:
        return len(self.calls)

    def __getitem__(self, index: int) -> Tensor:
        found = self.calls[index].everything("cpu")
        return torch.cat([found[name].flatten() for name in ("y", "state", "dt", "A", "B")])


def test_forked_workers_of_a_data_loader() -> None:
    data, before = Scanned(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        want = [data[i] for i in range(len(data))]  # and this process has helpers, which a child does not inherit
    finally:
        torch.set_num_threads(before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking beside threads
        loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
        assert all(torch.equal(x, y) for x, y in zip(loader, want, strict=True))


@pytest.mark.parametrize("softplus", [False, True])
def test_large_steps_are_finite(softplus: bool) -> None:
    call = random_call(length=130, batch=1, states=16, softplus=softplus, optional=False)
    dt = torch.linspace(1e-4, 20, 130)[None, :, None].expand_as(call.dt).contiguous()
    A = -torch.arange(1.0, 17).repeat(21, 1)  # up to dt A = -320: the decay is 0, and never a NaN
    call = replace(call, dt=dt, A=A)
    found, want = call.everything("cpu"), call.double().everything("reference")
    assert all(x.isfinite().all() for x in found.values())
    # float32 sums of up to a few thousand products in another order than the float64 reference's
    assert max(error(x, want[name]) for name, x in found.items()) < 2e-5


def test_nothing_is_left_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, call = torch.empty, random_call(length=100, channels=67, states=5, groups=1)
    want = call.everything("cpu")
    poison = lambda *a, **k: plain(*a, **k).fill_(torch.nan)  # noqa: E731 - what `empty` gives may be anything
    monkeypatch.setattr("torch.empty", poison)
    assert all(torch.equal(x, want[name]) for name, x in call.everything("cpu").items())


PROGRAM = """
import sys
import torch
from salience.ops.selective_scan import selective_scan
g = torch.Generator().manual_seed(0)
def normal(*shape):
    return torch.randn(*shape, generator=g)
u, dt, B, C, z = normal(2, 70, 21), normal(2, 70, 21), normal(2, 70, 5), normal(2, 70, 5), normal(2, 70, 21)
A, D = -normal(21, 5).exp(), normal(21)
leaves = [x.requires_grad_() for x in (u, dt, A, B, C, D, z)]
found = {}
for backend in ("cpu", "reference"):
    with torch.set_grad_enabled(sys.argv[1] == "gradients"):
        y, state = selective_scan(u, dt, A, B, C, D, z=z, dt_softplus=True, return_state=True, backend=backend)
    found[backend] = [y.detach(), state.detach()]
    if y.requires_grad:
        found[backend] += torch.autograd.grad((y * y).sum() + state.sum(), leaves)
for a, b in zip(*found.values()):
    assert float((a - b).abs().max() / b.abs().max()) < 2e-5  # float32 sums of 140 steps, 21 channels, in another order
"""


def _start(cpu: str, features: str, cache: Path, what: str = "gradients") -> subprocess.Popen[str]:
    env = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "SALIENCE_CACHE": str(cache)}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, what], env=env, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err


def test_two_processes_race_to_compile_for_a_plain_machine(tmp_path: Path) -> None:
    racers = [_start("generic", "", tmp_path / "cache", what) for what in ("gradients", "outputs")]
    for racer in racers:
        _finish(racer)
    kept = sorted(x.name.split("-")[0] for x in (tmp_path / "cache").iterdir())
    assert kept == ["backward_kernel", "forward_kernel", "total_kernel"]


@pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx512f"), reason="without AVX-512 every other test is this one"
)
def test_a_machine_with_avx2_and_no_folder_to_write_to(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    _finish(_start("haswell", "+avx,+avx2,+fma,+f16c,+bmi,+bmi2", in_the_way / "cache"))
