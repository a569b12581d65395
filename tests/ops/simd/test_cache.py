"""Compiled kernels on disk, in processes of their own: kept, shared, damaged, forbidden, raced for; other machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CODE = """
import sys, time, torch
sys.path.insert(0, {here!r})
from kernels import apply, apply_kernel
x = torch.linspace(-30, 30, 1001)
for kind in ("exp2", "softplus", "sigmoid"):
    y = apply(kind, x, threads=2).double()
    want = {{"exp2": torch.exp2, "softplus": torch.nn.functional.softplus, "sigmoid": torch.sigmoid}}[kind](x.double())
    assert (y - want).abs().div(want).max() < 3e-6, kind  # |x|/2 eps at |x| = 30, twice
half = torch.linspace(-7e4, 7e4, 5001).half()
assert torch.equal(apply("copy", half), half) and torch.equal(apply("copy", half.bfloat16()), half.bfloat16())
print(sum(each.cache_hits for each in apply_kernel._compiled.values()))
"""


def _start(cache: Path, **environment: str) -> subprocess.Popen[str]:
    code = CODE.format(here=str(HERE))
    env = {**os.environ, "SALIENCE_CACHE": str(cache), **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=pipe, stderr=pipe, text=True)


def _finish(process: subprocess.Popen[str]) -> int:
    """How many kernels came from disk."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return int(out)


def test_two_processes_race_for_a_cold_cache_and_damage_is_noticed(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache"
    racers = [_start(cache) for _ in range(2)]
    assert all(_finish(racer) >= 0 for racer in racers)
    files = sorted(cache.iterdir())
    assert len(files) == 3 and all(file.suffix == ".kernel" for file in files)  # one for each element type
    files[0].write_bytes(files[0].read_bytes()[:-100])
    files[1].write_bytes(b"")
    assert _finish(_start(cache)) == 1
    assert _finish(_start(cache)) == 3  # and mended


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")  # works for root too, whom no permission stops
    assert _finish(_start(in_the_way / "cache")) == 0


def test_other_machines_have_code_of_their_own(tmp_path: Path) -> None:
    avx2 = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+sse4.2,+popcnt"
    assert _finish(_start(tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")) == 0
    assert _finish(_start(tmp_path, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=avx2)) == 0
    assert len(list(tmp_path.iterdir())) == 6
