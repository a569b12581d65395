"""Run every claim about speed on this machine, write one results file and fill a page's table: `make bench`.

python benchmarks/run.py --out benchmarks/results/mamba_<hardware>_<date>.json --page docs/measured/speed.md
python benchmarks/run.py --from benchmarks/results/mamba_<hardware>_<date>.json --page docs/measured/speed.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from salience.core.environment import environment
from salience.core.files import write_atomic
from salience.core.markers import filled

HERE = Path(__file__).resolve().parent
CLAIMS = (
    "floor", "scan_forward", "scan_training", "conv", "mamba_forward", "mamba_decode", "training_memory", "scan_dtypes",
    "scan_length", "import_time", "selection_overhead", "pruned_prefill", "scan_gpu",
)  # fmt: skip
BEGIN, END = "<!-- benchmarks: begin (benchmarks/run.py writes this) -->", "<!-- benchmarks: end -->"


def run(names: list[str]) -> dict[str, Any]:
    """Each claim in a process of its own, one after the other; exits with the first that refuses."""
    found = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, str(HERE / f"{name}.py")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{name}.py ended with exit code {done.returncode}.")
        *told, line = done.stdout.splitlines()
        print("\n".join(told), flush=True)
        found[name] = {key: value for key, value in json.loads(line).items() if key != "environment"}
    import torch

    torch.get_num_threads()  # so that the environment tells them
    return {"schema": 1, "environment": environment(), "claims": found}


def table(found: dict[str, Any], source: str, target: str) -> str:
    """The page's table: a line for every figure, and a link to `target`, the file called `source`."""
    lines = ["| what | measured |", "| --- | --- |"]
    for claim in found["claims"].values():
        lines.append(f"| **{claim['claim']}** | |")
        lines += [f"| {what} | {figure} |" for what, figure in claim["lines"]]
    told = found["environment"]
    lines += [
        "",
        f"Measured by `make bench` on {told['cpu']} ({told['threads']} threads, {told['date'][:10]}, commit "
        f"`{str(told['commit'])[:12]}`, torch {told['torch']}, transformers {told['transformers']}), contenders "
        f"interleaved in one process, medians: [`{source}`]({target}).",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS), help="some of the claims")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="the results file")
    parser.add_argument("--from", dest="given", type=Path, help="a results file; nothing is measured")
    parser.add_argument("--page", type=Path, help="fill this page's table")
    told = parser.parse_args()
    path = told.given or told.out
    if told.given is None:
        found = run(told.only)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(found, indent=1, allow_nan=False) + "\n")
        print(f"Results: {path}")
    found = json.loads(path.read_text(encoding="utf-8"))
    if told.page is not None:
        source = path.resolve().relative_to(HERE.parent) if path.resolve().is_relative_to(HERE.parent) else path
        target = Path(os.path.relpath(path, told.page.resolve().parent)).as_posix()
        whole = told.page.read_text(encoding="utf-8")
        write_atomic(told.page, filled(whole, BEGIN, END, table(found, str(source), target)))


if __name__ == "__main__":
    main()
