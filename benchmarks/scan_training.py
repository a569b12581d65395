"""Forward and backward of the selective scan, D 1536, N 16, L 512: beside a plain loop, mambapy and the floor.

    python benchmarks/scan_training.py

The plain loop unbinds its tensors once: indexing `x[:, t]` makes a full-size gradient a step, an unfair baseline.
mambapy's parallel scan is what its layers train with.

Where the time goes on an AVX2 machine (EPYC of Zen 3, one thread, sampled): 57 % in the loops over the 16 states, 32 %
in what belongs to a step and not to a state (softplus and the gate with their derivatives, reading and writing eight
sequences whose rows lie 6 kB apart), the rest in checkpoints, sums over lanes and calls. Since then the derivatives are
kept in tiles from the first pass over a chunk, and constants of exp2 and softplus no longer made anew in every step.
The kernels run on torch's own threads, so that no contender's waiting threads take a core from another's.

Half of the peers' time goes into memory: they make gigabytes of it a call, which glibc returns to the system and the
system clears anew. Where it keeps freed memory (mallopt: no trimming, no mmap) the plain loop takes 270 ms instead of
500 and mambapy 300 instead of 710 on that machine. A program that has freed one tensor of 30 MB keeps more freed memory
(glibc raises its thresholds); the kernels' outputs of 3 MB are then as cheap as memory that is reused.

Of 12.5 ms in this run 10.7 pass in the three kernels and 1.8 in Python and torch around them, which take .5 ms where
nothing has pushed their code and data out of the caches; the contenders' gigabytes have. In the kernels the loops over
states take 7 to 8.8 cycles a vector of eight; 5.2 is what this processor reaches on the same instructions without any
dependence between them (a permutation of eight floats alone costs a cycle).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from floor import floor
from harness import Scan, arguments, median_ms, peer, refuse_unless_close, report
from torch import Tensor
from torch.nn.functional import silu, softplus

from salience import selective_scan


def fused(x: Scan) -> Tensor:
    y = selective_scan(x.u, x.dt, x.A, x.B, x.C, x.D, z=x.z, dt_bias=x.dt_bias, dt_softplus=True)
    assert isinstance(y, Tensor)
    return y


def loop(x: Scan) -> Tensor:
    dt = softplus(x.dt + x.dt_bias)
    decay = torch.exp(dt[..., None] * x.A)  # (B, L, D, N)
    drive = (dt * x.u)[..., None] * x.B[:, :, None]
    h, found = torch.zeros_like(drive[:, 0]), []
    for a, b, c in zip(decay.unbind(1), drive.unbind(1), x.C.unbind(1), strict=True):
        h = a * h + b
        found.append((h @ c[..., None]).squeeze(-1))
    return (torch.stack(found, 1) + x.u * x.D) * silu(x.z)


def mambapy(x: Scan) -> Tensor:
    pscan = peer("mambapy.pscan").pscan
    dt = softplus(x.dt + x.dt_bias)
    states = pscan(torch.exp(dt[..., None] * x.A), dt[..., None] * x.B[:, :, None] * x.u[..., None])
    return ((states @ x.C[..., None]).squeeze(-1) + x.u * x.D) * silu(x.z)


def gradients(scan: Callable[[Scan], Tensor], leaves: Scan, dy: Tensor) -> dict[str, Tensor]:
    """Forward and backward, by name; `leaves` from `Scan.require_grad`."""
    found = torch.autograd.grad(scan(leaves), list(vars(leaves).values()), dy)
    return dict(zip(vars(leaves), found, strict=True))


def main() -> None:
    told = arguments(__doc__ or "", length=512, rounds=21)
    x = Scan.random(length=told.length).require_grad()
    dy = torch.randn(x.u.shape, generator=torch.Generator().manual_seed(1))
    wanted = gradients(loop, x, dy)
    for name, scan in (("salience", fused), ("mambapy", mambapy)):
        for tensor, gradient in gradients(scan, x, dy).items():
            # float32 sums over up to 512 steps and 1536 channels, in another order
            refuse_unless_close(f"{name}'s gradient of {tensor}", gradient, wanted[tensor], within=1e-3)
    ms = median_ms(
        {
            "salience": lambda: gradients(fused, x, dy),
            "unbind loop": lambda: gradients(loop, x, dy),
            "mambapy": lambda: gradients(mambapy, x, dy),
            "floor": floor("forward", "backward", updates=x.updates),
        },
        rounds=told.rounds,
    )
    own = ms["salience"]
    report(
        f"forward and backward of the scan, D 1536, N 16, L {told.length}",
        {**ms, "length": told.length},
        [
            ("salience", f"{own:.1f} ms"),
            ("faster than a plain loop", f"{ms['unbind loop'] / own:.0f}x ({ms['unbind loop']:.0f} ms)"),
            ("faster than mambapy", f"{ms['mambapy'] / own:.0f}x ({ms['mambapy']:.0f} ms)"),
            ("over the arithmetic floor", f"{own / ms['floor']:.2f}x of {ms['floor']:.1f} ms"),
        ],
    )


if __name__ == "__main__":
    main()
