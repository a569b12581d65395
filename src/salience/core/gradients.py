"""Functions without gradients, which raise where a missing gradient would be a wrong result."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def no_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """`torch.no_grad` that raises inside torch.func.grad, vjp and jacrev, which would take the result for a constant.

    Raises:  RuntimeError there, unless the caller has switched gradients off
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_gradients(function.__qualname__)
        with torch.no_grad():
            return function(*args, **kwargs)

    return run


def refuse_gradients(name: str) -> None:
    """Raise RuntimeError inside torch.func.grad, vjp and jacrev, unless the caller has switched gradients off."""
    if not (torch._C._are_functorch_transforms_active() and torch.is_grad_enabled()):
        return
    stack = torch._C._functorch.get_interpreter_stack() or []
    if any(each.key() == torch._C._functorch.TransformType.Grad for each in stack):
        raise RuntimeError(
            f"{name} has no gradients, and torch.func.grad, vjp and jacrev would take its result for a constant: use "
            "the function of whole sequences, or call it under torch.no_grad()."
        )
