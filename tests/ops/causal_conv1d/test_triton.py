"""The Triton path beside the reference, by Triton's interpreter: outputs, state, every gradient, one step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .triton_cases import CASES, DEFAULT, errors

SCRIPT = Path(__file__).with_name("triton_cases.py")
#: Errors over the largest value. Sums of at most a hundred terms in another order; in 16 bits the reference
#: gets the same rounded inputs, and results are rounded once (the interpreter cuts: up to 2^-7 and 2^-10 of a value).
WITHIN = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    """All cases in a process of its own: the interpreter is chosen when triton is imported."""
    pytest.importorskip("triton")
    env = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_as_the_reference(name: str, found: dict[str, dict[str, float]]) -> None:
    within = WITHIN[CASES[name].get("dtype", DEFAULT["dtype"])]
    assert {what: error for what, error in found[name].items() if not error <= within} == {}


GPU = {
    "a layer": {"channels": 1536, "length": 1000, "dtype": torch.float32},
    "masked, packed": {"channels": 300, "length": 1001, "mask": True, "sequences": True, "dtype": torch.bfloat16},
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", GPU | CASES)
def test_as_the_reference_on_a_gpu(name: str) -> None:
    case = DEFAULT | (GPU | CASES)[name] | {"device": "cuda"}
    # as above, sums over up to 2000 steps
    within = {torch.float64: 1e-12, torch.float32: 1e-5}.get(case["dtype"], 8e-3)
    assert {what: error for what, error in errors(case).items() if not error <= within} == {}
