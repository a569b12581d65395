"""Environment of a measurement, and whether its machine was busy."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions, processor, threads, platform, commit, date and device of a measurement made now."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "salience": _version("salience"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "platform": platform.platform(),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
    }


#: A machine is busy where its load average is above this many times its cores, before a run and after one (which is
#: itself a load), or where a fixed job's 90th percentile is above this many times its 10th.
BUSY_AT_START, BUSY_AT_END, BUSY_SPREAD = 0.75, 1.5, 1.3


def busy_because(environment: Mapping[str, Any], cores: int) -> str | None:
    """Return one sentence if what `lab.profile.machine_load.Machine` observed is of a busy machine, else None."""
    start, end, spread = (environment.get(n) for n in ("load_average_start", "load_average_end", "floor_spread"))
    if start is not None and start > BUSY_AT_START * cores:
        return f"The load average was {start:.1f} at the start of the run, on {cores} cores."
    if end is not None and end > BUSY_AT_END * cores:
        return f"The load average was {end:.1f} at the end of the run, on {cores} cores."
    if spread is not None and spread > BUSY_SPREAD:
        return (
            f"A fixed job, timed again and again, took {spread:.1f} times as long at its slow end as at its fast one."
        )
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name as Linux tells it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def _commit() -> str | None:
    """The commit that this source was checked out at ('+' when files differ from it), or None outside a checkout."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
