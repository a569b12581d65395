"""A layer's parts: called as they are, or, where that is the same, read by a kernel.

Somebody else's parts may be wrapped, hooked, in few bits or elsewhere (LoRA, weight_norm, quantisation, accelerate).
Then what their weight says is not what they do, and they are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.utils.module_tracker import ModuleTracker

from salience.ops.linear_rows import linear_rows


def project(linear: Any, x: Tensor, backend: str) -> Tensor:
    """linear(x). What wraps or hooks it (LoRA, quantisation, accelerate) takes part: then it is called."""
    if not is_plain(linear):
        called: Tensor = linear(x)
        return called
    weights = linear._parameters
    return linear_rows(x, weights["weight"], weights["bias"], backend=backend)


def project_apart(linear: Any, x: Tensor, backend: str) -> tuple[Tensor, Tensor | None]:
    """(linear(x) without its bias, the bias), or, where it has to be called, (linear(x), None)."""
    if not is_plain(linear):
        return linear(x), None
    weights = linear._parameters
    return linear_rows(x, weights["weight"], backend=backend), weights["bias"]


def is_plain(module: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Whether it is of exactly this kind, and calling it does nothing but read its parameters: no hooks, no forward of
    its own, no weight that something else computes."""
    return (
        type(module) is kind
        and not _SHADOWS & module.__dict__.keys()
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and not _takes_part(every_module._global_forward_hooks)
        and not _takes_part(every_module._global_forward_pre_hooks)
        and (kind not in _WEIGHTED or module._parameters.get("weight") is not None)
    )


def _takes_part(hooks: Mapping[int, Any]) -> bool:
    """Whether a global hook may change a call; torch's ModuleTracker (in FlopCounterMode) only keeps names."""
    return any(not isinstance(getattr(hook, "__self__", None), ModuleTracker) for hook in hooks.values())


_SHADOWS = {"forward", "weight", "bias"}
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Embedding)


def blank(part: nn.Module, owner: nn.Module) -> Tensor:
    """An empty tensor, of the dtype that `part` of `owner` computes in and on its device, wherever its weights are."""
    held = [*part.parameters(), *owner.parameters()]
    # float8 is a way to store numbers, none to compute with
    dtype = next((p.dtype for p in held if p.is_floating_point() and p.element_size() > 1), torch.get_default_dtype())
    hooks = (getattr(module, "_hf_hook", None) for one in (part, owner) for module in one.modules())
    places = (getattr(hook, "execution_device", None) for hook in hooks)
    own = next((p.device for p in held), torch.device("cpu"))
    place = next((each for each in places if each is not None), own) if own.type == "meta" else own
    return torch.empty(0, dtype=dtype, device=place)


@contextmanager
def present(module: nn.Module) -> Iterator[None]:
    """With the module's own parameters where it runs: accelerate brings them when it is called, and only then."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is None:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, ())
