"""Time per token of the selective scan as L grows from 1k to 64k, D 256.

    python benchmarks/scan_length.py

Outputs lie on memory that was touched before, as the kernels' outputs do wherever they are called again and again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from harness import Scan, arguments, ratio, refuse_unless_close, report, rounds_ms
from scan_training import fused

from salience import selective_scan


def main() -> None:
    told = arguments(__doc__ or "", channels=256, rounds=25)
    lengths = [1024 << k for k in range(7)]
    longest = Scan.random(length=lengths[-1], channels=told.channels)

    def first(length: int) -> Scan:
        cut = ("u", "dt", "B", "C", "z")
        return Scan(**{name: x[:, :length] if name in cut else x for name, x in vars(longest).items()})

    def repeated(length: int) -> Callable[[], object]:
        x = first(length)

        def run() -> None:
            with torch.inference_mode():
                for _ in range(lengths[-1] // length):  # as many tokens at every length: the clock sees the same span
                    fused(x)

        return run

    x = first(1024)
    reference = selective_scan(
        x.u, x.dt, x.A, x.B, x.C, x.D, z=x.z, dt_bias=x.dt_bias, dt_softplus=True, backend="reference"
    )
    assert isinstance(reference, torch.Tensor)
    refuse_unless_close("the scan", fused(longest)[:, :1024], reference, within=1e-4)
    laps = rounds_ms({str(length): repeated(length) for length in lengths}, rounds=told.rounds)
    per_token = {length: statistics.median(lap[str(length)] for lap in laps) / lengths[-1] * 1e6 for length in lengths}
    beside = {length: ratio(laps, str(length), str(lengths[-1])) for length in lengths}
    spread = max(beside.values()) / min(beside.values()) - 1
    report(
        f"time per token as L grows from 1k to 64k, D {told.channels}, N 16",
        {
            "ns_per_token": {str(k): v for k, v in per_token.items()},
            "of_the_longest": {str(k): v for k, v in beside.items()},
            "spread": spread,
        },
        [
            *(
                (f"L {length}", f"{value:.0f} ns a token, {beside[length]:.2f}x of L 65536's in the same round")
                for length, value in per_token.items()
            ),
            ("slowest over fastest", f"{100 * spread:.0f} % more"),
        ],
    )


if __name__ == "__main__":
    main()
