"""Derivatives that no Triton kernel has, by Triton's interpreter, beside the reference's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("triton_derivatives.py")


def test_tangents_penalties_and_gradients_of_parts() -> None:
    pytest.importorskip("triton")
    env = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 15  # three operators, a tangent, a batch, and a penalty for each input
    # float64, sums in another order
    assert {what: error for what, error in found.items() if not error <= 1e-12} == {}
