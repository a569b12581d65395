"""The Triton path beside the definition, by Triton's interpreter: outputs, state, every gradient, two runs alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .triton_cases import CASES, DEFAULT, errors

SCRIPT = Path(__file__).with_name("triton_cases.py")
#: Errors over the largest value. Sums of at most a hundred terms in another order; in bfloat16 and float16 the loop
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
def test_as_the_definition(name: str, found: dict[str, dict[str, float]]) -> None:
    within = WITHIN[CASES[name].get("dtype", DEFAULT["dtype"])]
    assert {what: error for what, error in found[name].items() if not error <= within} == {}


def test_rows_that_lie_far_apart(found: dict[str, dict[str, float]]) -> None:
    assert found["far apart"]["y"] == 0  # the same numbers, elsewhere


@pytest.mark.parametrize("how", ["operator", "compiled"])
def test_through_the_operator(how: str, found: dict[str, dict[str, float]]) -> None:
    # as above, float64
    assert {what: error for what, error in found[how].items() if not error <= 1e-13} == {}


GPU: dict[str, dict[str, Any]] = {
    "a layer": {"channels": 1536, "length": 500, "d_state": 16, "groups": 1, "dtype": torch.float32},
    "one row, in segments": {"batch": 1, "channels": 256, "length": 3000, "d_state": 16, "groups": 1},
    "segments, masked, packed": {"batch": 1, "channels": 200, "length": 2001, "mask": True, "sequences": True},
    "bfloat16": {"channels": 512, "length": 300, "d_state": 16, "groups": 4, "dtype": torch.bfloat16},
    "reverse": {"channels": 100, "length": 400, "d_state": 7, "groups": 1, "reverse": True, "dtype": torch.float32},
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", GPU | CASES)
def test_as_the_definition_on_a_gpu(name: str) -> None:
    case = DEFAULT | (GPU | CASES)[name] | {"device": "cuda"}
    # the GPU's exp2 is good to 2 ulp, and sums are over up to 3000 steps and 1536 channels
    within = {torch.float64: 1e-11, torch.float32: 3e-5}.get(case["dtype"], 6e-3)
    assert {what: error for what, error in errors(case).items() if not error <= within} == {}
