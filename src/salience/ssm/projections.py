"""A layer's projections: called as they are, or, where that is the same, read by the kernel for few rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as every_module

from salience.ops.linear_rows import linear_rows


def project(linear: Any, x: Tensor, backend: str) -> Tensor:
    """linear(x). What wraps or hooks it (LoRA, quantisation, accelerate) takes part: then it is called."""
    if not is_plain(linear):
        called: Tensor = linear(x)
        return called
    weights = linear._parameters
    return linear_rows(x, weights["weight"], weights["bias"], backend=backend)


def is_plain(module: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Whether it is of exactly this kind, and calling it does nothing else: no hooks, no forward of its own."""
    return (
        type(module) is kind
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and not every_module._global_forward_hooks
        and not every_module._global_forward_pre_hooks
    )
