"""Fits in processes of their own: a parent that is killed takes them along, and what they began goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from salience.core.record import CompareRecord
from salience.core.result_rows import CompareRow
from salience.lab.compare.config import CompareConfig
from salience.lab.compare.run import compare
from salience.lab.result_cache import FOLDER

#: made data, and models without compiled kernels: what each of the processes would load takes longer than the fits
SMALL = CompareConfig(
    task="copying:tokens=2,length=24,epoch=120,test=40", models=("s4d", "transformer"), seeds=1, epochs=4, width=8,
    lengths=(), batch=8, processes=2, threads=1,
)  # fmt: skip
_RUN = """
import sys
from salience.lab.compare.run import compare
from salience.core.record import CompareRecord
from salience.core.result_rows import CompareRow
from salience.lab.compare.config import CompareConfig
if __name__ == "__main__":
    compare(CompareConfig(**eval(sys.argv[1])), out=sys.argv[2], quiet=True)
"""
_PATIENCE = 300.0  # seconds for a step of tens of milliseconds: only a fault or a stopped machine takes so long


def numbers(found: CompareRecord) -> list[CompareRow]:
    return [replace(row, train_tokens_per_s=None) for row in found.rows]


def wait(until: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not until():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def children(parent: int) -> list[int]:
    """Processes that have this parent."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(part) for part in text.split()]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_pool_killed_in_mid_epoch_leaves_nobody_behind_and_ends_with_the_same_numbers(tmp_path: Path) -> None:
    script, out = tmp_path / "run.py", tmp_path / "out"
    script.write_text(_RUN)
    given = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    parent = subprocess.Popen([sys.executable, str(script), repr(given), str(out)])
    try:
        # A checkpoint is written at an epoch's end, so right behind the first one the second epoch is under way.
        wait(lambda: parent.poll() is not None or any(out.glob("*/fit-*/state.safetensors")), "there is no checkpoint")
        assert parent.poll() is None
        pool = children(parent.pid)
        assert len(pool) >= 2
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait(lambda: not any(running(child) for child in pool), "the pool outlived its parent")
    assert not list(out.glob(f"{FOLDER}/*.result.json"))  # neither fit had ended
    alone = replace(SMALL, processes=1)  # of no influence on the numbers
    assert numbers(compare(alone, out=out, quiet=True)) == numbers(compare(alone, quiet=True))
