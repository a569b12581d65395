"""Run a model on shapes alone: floating point tensors are `meta`, whole numbers are computed.

On `meta` a 7B model takes no memory, but models also read values: the number of patches, the columns of image tokens,
the ends of windows. All of these are whole numbers, so they stay on the CPU with their values. Everything that depends
on weights or pixels is a shape. A comparison of floats is unknown and counts as False.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_aten = torch.ops.aten
_UNKNOWN = (_aten._local_scalar_dense.default,)
_BY_MASK = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Make modules and tensors on `meta`, and run such modules on shapes, without gradients."""
    whole_numbers = _WholeNumbers()  # type: ignore[no-untyped-call]
    with torch.no_grad(), whole_numbers, torch.device("meta"), _FusedAttention():
        yield


class _WholeNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that keeps tensors of whole numbers and booleans on the CPU, also beside `meta` tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        shapes = sum(tensor.is_meta for tensor in tensors)
        if shapes and shapes == len(tensors) and "device" not in kwargs and func not in _UNKNOWN:
            out = func(*args, **kwargs)  # nearly all operators, for speed
            return _known(out) if isinstance(out, Tensor) else tree_map(_known, out)
        if shapes:
            return self._mixed(func, args, kwargs)
        if torch.device(kwargs.get("device") or "cpu").type != "meta":
            return func(*args, **kwargs)
        dtype = kwargs.get("dtype") or (tensors[0].dtype if tensors else None)
        if dtype is None:  # a factory such as arange, which takes its type from its arguments
            dtype = func(*args, **kwargs).dtype
        return func(*args, **(kwargs if dtype.is_floating_point else {**kwargs, "device": torch.device("cpu")}))

    def _mixed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operator on some shapes: the result is a shape, or an unknown whole number, 0."""
        if func in _UNKNOWN:
            return 0.0
        if func in _BY_MASK:
            args = (args[0], _positions(args[1]), *args[2:])
        if torch.device(kwargs.get("device") or "meta").type != "meta":
            kwargs["device"] = torch.device("meta")
        out = func(*tree_map(_shape, args), **tree_map(_shape, kwargs))
        return tree_map(_known, out)


def _shape(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.is_meta:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _known(value: Any) -> Any:
    """The value, with zeros for whole numbers that depend on unknown floats."""
    if isinstance(value, Tensor) and value.is_meta and not (value.is_floating_point() or value.is_complex()):
        return torch.zeros(value.shape, dtype=value.dtype, device="cpu")
    return value


def _positions(indices: Any) -> list[Any]:
    """Boolean masks as positions, because `meta` does not know how many rows a mask keeps."""
    found: list[Any] = []
    for index in indices:
        known = isinstance(index, Tensor) and index.dtype == torch.bool and not index.is_meta
        found.extend(index.nonzero().unbind(1) if known else [index])
    return found


class _FusedAttention(TorchFunctionMode):
    """Mode for fused attention: `meta` would write out the whole square, which no kernel in use does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _fused(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """query (B, H, S, d) -> (B, H, S, d); the mask does not change shapes."""
    if query.shape[-1] != value.shape[-1]:  # the operator's rule for shapes knows one width
        value = query.new_empty(*value.shape[:-1], query.shape[-1])
    out: Tensor = _aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout_p, is_causal)[0]
    return out
