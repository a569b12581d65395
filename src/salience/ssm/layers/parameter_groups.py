"""Parameter groups: what a state space model's trainer must treat apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# What S6 mixers elsewhere (transformers, VMamba, Vim) call these; our own layers name theirs in `ssm_parameters`.
PUBLISHED = frozenset("A_log A_b_log A_logs D D_b Ds dt_bias dt_proj_bias dt_proj.bias dt_proj_b.bias".split())


def parameter_groups(model: nn.Module, *, lr: float, weight_decay: float, ssm_lr: float = 1e-3) -> list[dict[str, Any]]:
    """The model's trainable parameters for an optimizer: matrices decay; biases, norms and the state space's do not.

    The state space's own (A_log, D, dt's bias) also have a learning rate of their own: decayed or hurried, they forget.

    Args:    lr, weight_decay: of the matrices, lr also of biases and norms   ssm_lr: of the state space's parameters
    Returns: up to three groups with "name" ("decay", "no_decay", "ssm"), "params", "lr" and "weight_decay"
    Raises:  ValueError when a rate is negative, or nothing in the model is trainable
    """
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("ssm_lr", ssm_lr)):
        if not value >= 0:
            raise ValueError(f"{name} must be a number of at least 0, not {value!r}.")
    own = set(_own(model))
    sorted_out: dict[str, list[nn.Parameter]] = {"decay": [], "no_decay": [], "ssm": []}
    for parameter in model.parameters():  # each once, however often it is shared
        if not parameter.requires_grad:
            continue
        group = "ssm" if id(parameter) in own else "decay" if parameter.ndim >= 2 else "no_decay"
        sorted_out[group].append(parameter)
    if not any(sorted_out.values()):
        raise ValueError("model must have a trainable parameter, and all of its parameters are frozen or it has none.")
    rates = {"decay": (lr, weight_decay), "no_decay": (lr, 0.0), "ssm": (ssm_lr, 0.0)}
    return [
        {"name": name, "params": params, "lr": rates[name][0], "weight_decay": rates[name][1]}
        for name, params in sorted_out.items()
        if params
    ]


def _own(model: nn.Module) -> Iterator[int]:
    """The ids of the state space's parameters, by the layers' own word or by their published names."""
    for module in model.modules():
        names = getattr(type(module), "ssm_parameters", None)
        if names is None:
            # a lone "D" is a common letter: only beside an A is it the skip
            known = any(name.startswith("A_") for name, _ in module.named_parameters(recurse=False))
            names = PUBLISHED if known else ()
        for name, parameter in module.named_parameters():
            if name in names:
                yield id(parameter)
