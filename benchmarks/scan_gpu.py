"""Forward and backward of the selective scan on a GPU: beside the memory's bandwidth and mamba_ssm's CUDA kernel.

    python benchmarks/scan_gpu.py

The bytes counted are those that any scan moves: forward u, dt, z, B, C in and y out; backward these and dy in, five
gradients out; checkpoints and partial sums are its own affair. The bandwidth is that of a large copy, measured in the
same run.
Where there is no GPU it says so and measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import Scan, arguments, refuse_unless_close, report
from torch import Tensor

from salience import selective_scan


def fused(x: Scan, backend: str = "triton") -> Tensor:
    y = selective_scan(x.u, x.dt, x.A, x.B, x.C, x.D, z=x.z, dt_bias=x.dt_bias, dt_softplus=True, backend=backend)
    assert isinstance(y, Tensor)
    return y


def mamba_ssm() -> Callable[[Scan], Tensor] | None:
    """mamba_ssm's kernel where it is installed, on tensors of its own layout."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None

    def scan(x: Scan) -> Tensor:
        u, dt, B, C, z = (t.transpose(1, 2) for t in (x.u, x.dt, x.B, x.C, x.z))
        y: Tensor = selective_scan_fn(u, dt, x.A, B, C, x.D, z, x.dt_bias, delta_softplus=True)
        return y.transpose(1, 2)

    return scan


def turned(x: Scan) -> Scan:
    """The sequences as mamba_ssm wants them in memory, (B, D, L), so that it need not copy."""
    lie = {n: getattr(x, n).transpose(1, 2).contiguous().transpose(1, 2) for n in ("u", "dt", "B", "C", "z")}
    return Scan(**(vars(x) | lie))


def pair(scan: Callable[[Scan], Tensor], x: Scan, dy: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward, to be called again and again. The clones keep their strides."""
    leaves = x.require_grad()
    return lambda: torch.autograd.grad(scan(leaves), list(vars(leaves).values()), dy)


def event_ms(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds by CUDA events, contenders taking turns, after a warm-up that also tunes and compiles."""
    laps: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        for _ in range(3):
            call()
    for _ in range(rounds):
        for name, call in cases.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            laps[name].append(begin.elapsed_time(end))
    return {name: sorted(found)[len(found) // 2] for name, found in laps.items()}


def check(x: Scan, name: str, scan: Callable[[Scan], Tensor], within: float) -> None:
    """Output and gradients beside the plain reference in float64, on the first steps and channels."""
    short = Scan(**{n: t[:1, :200, ..., : 64 if n in ("u", "dt", "z") else None] if t.dim() == 3 else t[:64]
                    for n, t in vars(x).items()})  # fmt: skip
    dy = torch.randn(short.u.shape, generator=torch.Generator().manual_seed(1)).to(short.u)
    exact = Scan(**{n: t.double() for n, t in vars(short).items()}).require_grad()
    wanted = torch.autograd.grad(fused(exact, "reference"), list(vars(exact).values()), dy.double())
    for what, got, want in zip(vars(x), pair(scan, short, dy)(), wanted, strict=True):
        refuse_unless_close(f"{name}'s gradient of {what}", got, want, within=within)


def main() -> None:
    told = arguments(__doc__ or "", batch=8, length=2048, channels=1536, rounds=21)
    claim = f"forward and backward of the scan on a GPU, batch {told.batch}, D {told.channels}, N 16, L {told.length}"
    if not torch.cuda.is_available():
        report(claim, {}, [("on a GPU", "unmeasured: no GPU")])
        return
    base = Scan.random(length=told.length, channels=told.channels, batch=told.batch)
    measured: dict[str, float] = {}
    lines = [("GPU", torch.cuda.get_device_name())]
    peer = mamba_ssm()
    large = torch.empty(2**28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(large)
    for name, dtype, within in (("float32", torch.float32, 1e-3), ("bfloat16", torch.bfloat16, 3e-2)):
        # float32 sums of 200 steps; bfloat16 gradients are rounded to 2^-9, those of B and C summed from such terms
        x = Scan(**{n: t.cuda() for n, t in vars(base.to(dtype)).items()})
        dy = torch.randn_like(x.u)
        check(x, "salience", fused, within)
        cases: dict[str, Callable[[], object]] = {"salience": pair(fused, x, dy), "copy": lambda: target.copy_(large)}
        if peer is not None:
            check(x, "mamba_ssm", peer, within)
            cases["mamba_ssm"] = pair(peer, turned(x), dy)
        ms = event_ms(cases, told.rounds)
        moved = (11 * x.u.numel() + 6 * x.B.numel()) * x.u.element_size()
        speed, most = moved / ms["salience"], 2 * large.numel() * 4 / ms["copy"]  # bytes a millisecond
        measured |= {f"{name}_{what}_ms": value for what, value in ms.items()}
        measured[f"{name}_share_of_bandwidth"] = speed / most
        share = f"{speed / most:.0%} of a copy's {most / 1e9:.2f} TB/s"
        lines.append((f"{name}", f"{ms['salience']:.2f} ms, {share}"))
        other = f"{ms['mamba_ssm'] / ms['salience']:.2f}x ({ms['mamba_ssm']:.2f} ms)" if peer else "not installed"
        lines.append((f"{name}, speed over mamba_ssm's kernel", other))
    report(claim, measured, lines)


if __name__ == "__main__":
    main()
