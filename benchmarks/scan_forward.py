"""Forward of the selective scan, D 1536, N 16, L 2048: beside transformers' own loop and the arithmetic floor.

python benchmarks/scan_forward.py
"""

from __future__ import annotations

import torch
from floor import bytes_floor_ms, floor
from harness import Scan, arguments, median_ms, refuse_unless_close, report

from salience import selective_scan


def main() -> None:
    told = arguments(__doc__ or "", length=2048, rounds=7)
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    x = Scan.random(length=told.length)
    turned = {name: getattr(x, name).transpose(1, 2).contiguous() for name in ("u", "dt", "B", "C", "z")}

    def ours() -> torch.Tensor:
        y = selective_scan(x.u, x.dt, x.A, x.B, x.C, x.D, z=x.z, dt_bias=x.dt_bias, dt_softplus=True)
        assert isinstance(y, torch.Tensor)
        return y

    def transformers() -> torch.Tensor:
        y: torch.Tensor = mamba_selective_scan(
            turned["u"], turned["dt"], x.A, turned["B"], turned["C"], D=x.D, z=turned["z"], delta_bias=x.dt_bias,
            delta_softplus=True,
        )  # fmt: skip
        return y

    with torch.inference_mode():
        # both sum float32 products in another order over up to `length` steps
        refuse_unless_close("the scan", ours(), transformers().transpose(1, 2), within=1e-4)
        contenders = {"salience": ours, "transformers": transformers, "floor": floor("forward", updates=x.updates)}
        ms = median_ms(contenders, rounds=told.rounds)
    moved = bytes_floor_ms(4 * x.u.nbytes + 2 * x.B.nbytes)  # u, dt, z, B and C in, y out
    report(
        f"forward of the scan, D 1536, N 16, L {told.length}",
        {**ms, "bytes_floor_ms": moved, "length": told.length},
        [
            ("salience", f"{ms['salience']:.1f} ms"),
            ("transformers' loop", f"{ms['transformers']:.0f} ms"),
            ("faster than transformers", f"{ms['transformers'] / ms['salience']:.0f}x"),
            ("over the arithmetic floor", f"{ms['salience'] / ms['floor']:.2f}x of {ms['floor']:.1f} ms"),
            ("over moving its bytes once", f"{ms['salience'] / moved:.1f}x of {moved:.1f} ms"),
        ],
    )


if __name__ == "__main__":
    main()
