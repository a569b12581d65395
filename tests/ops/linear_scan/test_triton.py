"""The Triton path beside the definition, by Triton's interpreter: outputs, state, every gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .triton_cases import CASES, errors

#: Errors over the largest value: sums of a few dozen products in another order.
WITHIN = {torch.float64: 1e-13, torch.complex128: 1e-13, torch.float32: 2e-6, torch.complex64: 2e-6}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    """All cases in a process of its own: the interpreter is chosen when triton is imported."""
    pytest.importorskip("triton")
    here = Path(__file__).parent
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(here.parent)}
    command = [sys.executable, "-m", f"{here.name}.triton_cases"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", [*CASES, "no gradient of the state"])
def test_as_the_definition(name: str, found: dict[str, dict[str, float]]) -> None:
    within = WITHIN[CASES.get(name, {}).get("dtype", torch.complex128)]
    assert {what: error for what, error in found[name].items() if not error <= within} == {}


GPU: dict[str, dict[str, Any]] = {
    "a layer": {"batch": 32, "length": 784, "width": 32, "dtype": torch.complex64},
    "wide, packed": {"length": 300, "width": 200, "dtype": torch.complex64, "varying": True, "packed": True},
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", GPU | CASES)
def test_as_the_definition_on_a_gpu(name: str) -> None:
    case = (GPU | CASES)[name]
    within = {torch.float64: 1e-12, torch.complex128: 1e-12}.get(case["dtype"], 2e-5)  # sums over up to 25,000 steps
    assert {what: error for what, error in errors(case, device="cuda").items() if not error <= within} == {}


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu() -> None:
    """No GPU is needed to compile; by itself, since the interpreter must be off."""
    pytest.importorskip("triton")
    script = Path(__file__).with_name("triton_compiled.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
