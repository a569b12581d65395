"""Peak memory of training through the selective scan, D 1536, N 16, L 512, beside mambapy's.

    python benchmarks/training_memory.py

Each contender runs in a process of its own; its peak is the resident memory above what the process held before, as
Linux counts it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from harness import Scan, arguments, report
from scan_training import fused, gradients, mambapy


def grown_mb(name: str, length: int) -> float:
    """Forward and backward in this process: how far the peak of its memory rises, in MB."""
    scan = {"salience": fused, "mambapy": mambapy}[name]
    gradients(
        scan, Scan.random(length=2).require_grad(), torch.ones(1, 2, 1536)
    )  # compiles, and loads what is loaded at first use
    x = Scan.random(length=length).require_grad()
    dy = torch.ones_like(x.u)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak: compiling took more than the scan does
    before = status_mb("VmRSS")
    gradients(scan, x, dy)
    return status_mb("VmHWM") - before


def status_mb(field: str) -> float:
    """A line of /proc/self/status that tells kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--one":
        print(grown_mb(sys.argv[2], int(sys.argv[3])))
        return
    told = arguments(__doc__ or "", length=512)
    mb = {}
    for name in ("salience", "mambapy"):
        command = [sys.executable, __file__, "--one", name, str(told.length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        mb[name] = float(done.stdout.split()[-1])
    report(
        f"peak memory of forward and backward of the scan, D 1536, N 16, L {told.length}",
        {f"{name}_mb": value for name, value in mb.items()},
        [
            ("salience", f"{mb['salience']:.0f} MB"),
            ("mambapy", f"{mb['mambapy']:.0f} MB"),
            ("of mambapy's", f"1/{mb['mambapy'] / mb['salience']:.0f}"),
        ],
    )


if __name__ == "__main__":
    main()
