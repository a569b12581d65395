"""Derivatives that have no kernel, taken from the plain PyTorch form of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Optional = Tensor | None


def pullback(
    function: Callable[..., Sequence[Optional]],
    inputs: Sequence[Optional],
    cotangents: Sequence[Optional],
    needed: Sequence[bool] | None = None,
) -> tuple[Optional, ...]:
    """Gradients of the inputs from those of the outputs; differentiable again if gradients are on.

    `function` gets views of the inputs, so that an input that was computed from another input keeps its own gradient.

    Args:    function: of the inputs, its outputs one for each cotangent   inputs: None for what is absent
             cotangents: None for an unused output   needed: inputs that need a gradient, None for all
    Returns: one for each input, None where it is absent, not needed or without influence
    """
    again, needed = torch.is_grad_enabled(), [True] * len(inputs) if needed is None else needed
    with torch.enable_grad():
        own = [x if x is None else x.view_as(x) if again else x.detach() for x in inputs]
        wanted = [x is not None and need for x, need in zip(own, needed, strict=True)]
        leaves = [x.requires_grad_() for x, want in zip(own, wanted, strict=True) if x is not None and want]
        pairs = [
            (out, given)
            for out, given in zip(function(*own), cotangents, strict=True)
            if out is not None and given is not None and out.requires_grad
        ]
        if not (pairs and leaves):
            return (None,) * len(inputs)
        outs, givens = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outs, leaves, givens, create_graph=again, allow_unused=True))
    return tuple(next(found) if want else None for want in wanted)
