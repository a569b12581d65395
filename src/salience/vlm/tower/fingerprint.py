"""Fingerprints of vision towers: a few numbers that tell the tower a scorer was trained on from any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def tower_fingerprint(tower: nn.Module, /, *, without: nn.Module | None = None, **shape: Any) -> dict[str, Any]:
    """`shape` and a sample of the tower's weights: the middle one of each of at most 32 parameters.

    A weight is None if it is quantised or not in memory. If PEFT's adapters are in the tower, the sample has the base
    weights, and "adapters" has a sample of the adapters' own.   without: a part of the tower to leave out
    """
    own, adapters = _matrices(tower, without)
    with torch.no_grad():
        mark = {**shape, "sample": _sample(tower, own)}
        return {**mark, "adapters": _sample(tower, adapters)} if adapters else mark


def _matrices(tower: nn.Module, without: nn.Module | None) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters with more than one axis, also those removed by dynamic quantisation: (own, adapters').

    Each maps the name without adapters to the present name.
    """
    left_out: set[nn.Module] = set() if without is None else set(without.modules())
    wrappers = [f"{name}." for name, module in tower.named_modules() if hasattr(module, "base_layer")]
    own, adapters = {}, {}
    for owner, module in tower.named_modules():
        if module in left_out:
            continue
        names = [name for name, p in module.named_parameters(recurse=False) if p.dim() > 1]
        if "weight" not in module._parameters and callable(getattr(module, "weight", None)):
            names.append("weight")
        for name in names:
            path = f"{owner}.{name}" if owner else name
            around = [start for start in wrappers if path.startswith(start)]
            if all(path.startswith(f"{start}base_layer.") for start in around):
                own[path.replace(".base_layer.", ".")] = path
            else:
                adapters[path] = path
    return own, adapters


def _sample(tower: nn.Module, names: Mapping[str, str]) -> list[float | None]:
    ordered = sorted(names)
    values = [_middle(tower, names[name]) for name in ordered[:: max(1, len(ordered) // 32)][:32]]
    return [None if value is None else float(f"{value:.6g}") for value in values]


def _middle(tower: nn.Module, name: str) -> float | None:
    """The value in the middle of a parameter, also if accelerate holds it on another device."""
    owner, _, own = name.rpartition(".")
    module = tower.get_submodule(owner)
    parameter = module._parameters.get(own)
    hook: Any = getattr(module, "_hf_hook", None)
    if parameter is not None and parameter.is_meta and getattr(hook, "weights_map", None) is not None:
        parameter = hook.weights_map[own]
    plain = parameter is not None and type(parameter) in (Tensor, nn.Parameter) and not parameter.is_meta
    if parameter is None or not plain or not parameter.is_floating_point():
        return None
    return float(parameter.reshape(-1)[parameter.numel() // 2])


def same_tower(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> bool:
    """Whether two fingerprints are of the same vision tower, in any dtype.

    Quantised weights are not compared. Nor are adapters: see `same_adapters`.
    """
    ignored = {"sample": None, "adapters": None}
    if not a or not b or {**a, **ignored} != {**b, **ignored}:
        return False
    return _alike(a.get("sample"), b.get("sample"))


def same_adapters(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two fingerprints of one tower have the same adapters in it, or none."""
    return _alike(a.get("adapters"), b.get("adapters"))


def _alike(x: Sequence[float | None] | None, y: Sequence[float | None] | None) -> bool:
    x, y = x or [], y or []
    if len(x) != len(y):
        return False
    known = [(one, other) for one, other in zip(x, y, strict=True) if None not in (one, other)]
    if not known:
        return bool(x == y)
    one, other = (torch.tensor(values) for values in zip(*known, strict=True))
    # bfloat16 keeps 8 bits: rounding changes a weight by at most 2**-9, .2 %; 1 % allows that but no other weights
    return bool(torch.isclose(one, other, rtol=1e-2, atol=1e-6).all())


def unlike(made_for: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Difference between two fingerprints, a clause."""
    names = [name for name in {**made_for, **mine} if name not in ("sample", "adapters")]
    told = [
        f"{name} {made_for.get(name)!r}, here {mine.get(name)!r}"
        for name in names
        if made_for.get(name) != mine.get(name)
    ]
    return "; ".join(told) or "the same shape, but other weights"
