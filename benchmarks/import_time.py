"""`import salience` over `import torch`, in fresh processes, and what it loads.

python benchmarks/import_time.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from harness import arguments, report

CODE = """
import json, sys, time
import torch
start = time.perf_counter()
import salience
salience.selective_scan, salience.Mamba
took = time.perf_counter() - start
print(json.dumps([took, sorted({"numba", "triton", "transformers"} & set(sys.modules))]))
"""


def main() -> None:
    told = arguments(__doc__ or "", rounds=7)
    found = []
    for _ in range(told.rounds):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    heavy = sorted({name for _, names in found for name in names})
    if heavy:
        sys.exit(f"import salience loads {', '.join(heavy)}, which it must not: nothing is measured.")
    seconds = statistics.median(took for took, _ in found)
    report(
        "import salience, its operators and layers, over import torch",
        {"seconds": seconds},
        [("over import torch", f"{seconds:.3f} s, without numba, triton or transformers")],
    )


if __name__ == "__main__":
    main()
