"""The Triton kernels as the compiler for NVIDIA GPUs sees them: no GPU is needed to compile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).with_name("triton_compiled.py")


@pytest.mark.slow
def test_the_kernels_compile_and_a_lane_keeps_its_channel() -> None:
    pytest.importorskip("triton")
    # by itself: the interpreter must be off, and torch must not have met this triton
    done = subprocess.run([sys.executable, str(CHECK)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
