"""The causal convolution with its activation, D 1536, width 4, L 512: beside PyTorch's, and beside copying the input.

python benchmarks/conv.py
"""

from __future__ import annotations

import torch
from harness import arguments, median_ms, refuse_unless_close, report
from torch import Tensor
from torch.nn.functional import conv1d, silu

from salience import causal_conv1d

CHANNELS, WIDTH = 1536, 4


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (B, L, D), as a Mamba layer calls it."""
    y = causal_conv1d(x, weight, bias, activation="silu")
    assert isinstance(y, Tensor)
    return y


def stock(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (B, D, L), as transformers' slow path has it: pad both sides, convolve, cut, activate."""
    y = conv1d(x, weight[:, None], bias, padding=WIDTH - 1, groups=CHANNELS)
    return silu(y[..., : x.shape[-1]])


def main() -> None:
    told = arguments(__doc__ or "", length=512, rounds=31)
    g = torch.Generator().manual_seed(0)
    xz = torch.randn(1, told.length, 2 * CHANNELS, generator=g)
    x = xz[..., :CHANNELS]  # half of what the layer's first projection gives: rows lie apart
    weight, bias = torch.randn(CHANNELS, WIDTH, generator=g), torch.randn(CHANNELS, generator=g)
    turned, dy = x.transpose(1, 2).contiguous(), torch.randn(1, told.length, CHANNELS, generator=g)
    turned_dy, copied = dy.transpose(1, 2).contiguous(), torch.empty_like(dy)
    leaves, turned_leaves = ([t.detach().requires_grad_() for t in (each, weight, bias)] for each in (x, turned))

    with torch.inference_mode():
        # float32 sums of five terms in another order
        refuse_unless_close("the convolution", fused(x, weight, bias), stock(turned, weight, bias).mT, within=1e-6)
    ours = torch.autograd.grad(fused(*leaves), leaves, dy)
    theirs = torch.autograd.grad(stock(*turned_leaves), turned_leaves, turned_dy)
    for name, got, want in zip(("x", "weight", "bias"), ours, (theirs[0].mT, *theirs[1:]), strict=True):
        refuse_unless_close(f"the gradient of {name}", got, want, within=1e-5)  # sums over `length` steps

    with torch.inference_mode():
        ms = median_ms(
            {
                "salience": lambda: fused(x, weight, bias),
                "torch": lambda: stock(turned, weight, bias),
                "copy": lambda: copied.copy_(x),
            },
            rounds=told.rounds,
        )
    ms |= median_ms(
        {
            "salience_training": lambda: torch.autograd.grad(fused(*leaves), leaves, dy),
            "torch_training": lambda: torch.autograd.grad(stock(*turned_leaves), turned_leaves, turned_dy),
        },
        rounds=told.rounds,
    )
    report(
        f"causal convolution and SiLU, D {CHANNELS}, width {WIDTH}, L {told.length}",
        ms,
        [
            ("forward", f"{ms['salience']:.2f} ms, PyTorch {ms['torch']:.2f} ms: {ms['torch'] / ms['salience']:.1f}x"),
            ("forward over a copy of the input", f"{ms['salience'] / ms['copy']:.1f}x of {ms['copy']:.2f} ms"),
            (
                "forward + backward",
                f"{ms['salience_training']:.2f} ms, PyTorch {ms['torch_training']:.2f} ms: "
                f"{ms['torch_training'] / ms['salience_training']:.1f}x",
            ),
        ],
    )


if __name__ == "__main__":
    main()
