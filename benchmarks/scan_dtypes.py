"""bfloat16 beside float32: the scan (forward, and with backward) and the convolution.

python benchmarks/scan_dtypes.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from harness import Scan, arguments, ratio, refuse_unless_close, report, rounds_ms
from scan_training import fused, gradients
from torch import Tensor

from salience import causal_conv1d


def conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = causal_conv1d(x, weight, bias, activation="silu")
    assert isinstance(y, Tensor)
    return y


def conv_gradients(leaves: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(conv(*leaves), leaves, dy)


def main() -> None:
    told = arguments(__doc__ or "", length=512, rounds=31)
    cases: dict[str, Callable[[], object]] = {}
    outputs = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        x = Scan.random(length=told.length).to(dtype)
        weight, bias, dy = torch.randn(1536, 4), torch.randn(1536), torch.randn_like(x.u)
        outputs[name] = fused(x)

        def forward(x: Scan = x) -> Tensor:
            with torch.inference_mode():
                return fused(x)

        def conv_forward(x: Scan = x, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            with torch.inference_mode():
                return conv(x.u, weight, bias)

        cases[f"scan, {name}"] = forward
        scanned = x.require_grad()
        cases[f"scan with backward, {name}"] = lambda x=scanned, dy=dy: gradients(fused, x, dy)
        cases[f"convolution, {name}"] = conv_forward
        leaves = [tensor.detach().requires_grad_() for tensor in (x.u, weight, bias)]
        cases[f"convolution with backward, {name}"] = lambda leaves=leaves, dy=dy: conv_gradients(leaves, dy)
    # bfloat16 inputs are rounded to 8 bits, states and sums are not
    refuse_unless_close("the scan in bfloat16", outputs["bfloat16"].float(), outputs["float32"], within=3e-2)
    parts = [name.removesuffix(", float32") for name in cases if name.endswith("float32")]
    pairs = {part: (f"{part}, float32", f"{part}, bfloat16") for part in parts}
    laps = rounds_ms({name: cases[name] for pair in pairs.values() for name in pair}, rounds=told.rounds)
    ms = {name: statistics.median(lap[name] for lap in laps) for name in cases}
    report(
        f"bfloat16 beside float32, D 1536, N 16, L {told.length}",
        ms | {f"{part}, ratio": ratio(laps, *pair) for part, pair in pairs.items()},
        [
            (part, f"{ratio(laps, whole, half):.2f}x as fast ({ms[half]:.2f} ms, float32 {ms[whole]:.2f} ms)")
            for part, (whole, half) in pairs.items()
        ],
    )


if __name__ == "__main__":
    main()
