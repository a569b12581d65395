"""Derivatives through the Triton backend beside the reference's. Run as a script: one JSON line of errors.

A script, since Triton's interpreter must be switched on before triton is imported:
TRITON_INTERPRET=1 python triton_derivatives.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from salience.ops.causal_conv1d import causal_conv1d
from salience.ops.linear_scan import linear_scan
from salience.ops.selective_scan import selective_scan

MASK = torch.tensor([[1, 0, 1, 1]]).bool()
Loss = Callable[..., Tensor]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def losses(backend: str) -> dict[str, Loss]:
    """Of each operator, of all that it differentiates."""

    def scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return selective_scan(u, dt, A, B, B, z=u, dt_softplus=True, mask=MASK, backend=backend).square().sum()

    def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return causal_conv1d(x, weight, bias, activation="silu", mask=MASK, backend=backend).square().sum()

    def linear(a: Tensor, b: Tensor) -> Tensor:
        return linear_scan(a, b, mask=MASK, reverse=True, backend=backend).square().sum()

    return {"scan": scan, "convolution": convolution, "linear scan": linear}


def derivatives(loss: Loss, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """A tangent, a penalty on the gradient by create_graph, and gradients of two parts."""
    ones = tuple(torch.ones_like(x) for x in tensors)
    leaves = [x.clone().requires_grad_() for x in tensors]
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    penalty = torch.autograd.grad(sum(x.square().sum() for x in first), leaves)
    each = vmap(grad(loss, 1), (0, *[None] * (len(tensors) - 1)))(torch.stack([tensors[0], -tensors[0]]), *tensors[1:])
    found = {"tangent": jvp(loss, tensors, ones)[1], "each": each}
    return found | {f"penalty {k}": x for k, x in enumerate(penalty)}


def main() -> None:
    torch.manual_seed(0)
    given = {
        "scan": (normal(1, 4, 2), normal(1, 4, 2), -normal(2, 2).exp(), normal(1, 4, 2)),
        "convolution": (normal(1, 4, 2), normal(2, 3), normal(2)),
        "linear scan": (normal(2), normal(1, 4, 2)),
    }
    ours, wanted = losses("triton"), losses("reference")
    found = {}
    for name, tensors in given.items():
        want = derivatives(wanted[name], tensors)
        for what, x in derivatives(ours[name], tensors).items():
            found[f"{name}, {what}"] = float((x - want[what]).abs().max() / want[what].abs().max())
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
