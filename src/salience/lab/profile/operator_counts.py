"""Cost of a call's operators by stage: operations, bytes moved and number of launches.

Operations are 2 per multiply-add, with attention as the full square and every layer that runs. They are counted from
the operators that run, so no formula depends on the model. On `meta` tensors nothing is computed and the counts are the
same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from salience.lab.profile.roofline import Roofline

_aten = torch.ops.aten


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    """2 B H S T (d + d_v): both products as the full square, whatever a mask leaves out.

    query (B, H, S, d), key (B, H_kv, T, d), value (B, H_kv, T, d_v); grouped heads cost as many as the query's.
    """
    batch, heads, rows, width = query.shape
    return int(2 * batch * heads * rows * key.shape[-2] * (width + value.shape[-1]))


# torch's table lacks the CPU's fused kernel, so attention on a CPU would count as zero. Under inference_mode the
# composite operator arrives instead; FlopCounterMode counts one of the two, never both.
_attention_flops._get_raw = True  # type: ignore[attr-defined]
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    _aten.scaled_dot_product_attention: _attention_flops,
}
_FLOPS: dict[Any, Callable[..., int]] = {**flop_registry, **_ATTENTION}
#: They read only the rows that they return.
_LOOKUPS = (_aten.embedding, _aten.index, _aten.index_select, _aten.gather)
_UNWRITTEN = (_aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided)


def count_flops(call: Callable[..., object], *args: Any, **kwargs: Any) -> int:
    """Floating point operations of one `call(*args, **kwargs)` without gradients.

    Matrix products, convolutions and attention count; element-wise work does not (under 1 % in a transformer).
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        call(*args, **kwargs)
    return int(counter.get_total_flops())


@dataclass(kw_only=True)
class Work:
    """Operators by their cost: (operations, bytes read and written) -> number of such operators."""

    operators: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def flops(self) -> int:
        """2 a multiply-add."""
        return sum(flops * times for (flops, _), times in self.operators.items())

    def seconds(self, roof: Roofline, widen: float = 1.0) -> float:
        """Predicted time: for each operator that of its operations or its bytes, the longer, and at least its launch.

        widen: factor on the bytes, if the numbers are wider than those counted.
        """
        return sum(roof.seconds(flops, moved * widen) * times for (flops, moved), times in self.operators.items())

    def scaled(self, share: float) -> Work:
        """The same operators on a share of the rows."""
        operators: Counter[tuple[int, int]] = Counter()
        for (flops, moved), times in self.operators.items():
            operators[round(flops * share), round(moved * share)] += times
        return Work(operators=operators)


class CountOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that counts every operator under the innermost running stage, in `work[stage]`.

    Results do not change. Within `shapes_only()` nothing is computed at all.
    """

    def __init__(self, stage: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work: dict[str, Work] = {}
        self._stages = [stage]

    @contextmanager
    def watching(self, modules: Iterable[nn.Module], stage: str) -> Iterator[None]:
        """Count operators inside `modules` under `stage`; the hooks are removed on leaving."""
        handles = []
        try:
            for module in modules:
                handles.append(module.register_forward_pre_hook(lambda *_: self._stages.append(stage)))
                handles.append(module.register_forward_hook(lambda *_: self._leave()))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self) -> None:
        self._stages.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = _FLOPS.get(func._overloadpacket)
        if count is None and func is not torch.ops.prim.device.default:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if not func.is_view:
            flops = 0 if count is None else int(count(*args, **kwargs, out_val=out))
            work = self.work.setdefault(self._stages[-1], Work())
            work.operators[flops, _moved(func, (args, kwargs), out)] += 1
        return out


def _moved(func: Any, given: Any, out: Any) -> int:
    """Bytes read and written."""
    written = sum(_bytes(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
    if func._overloadpacket in _UNWRITTEN:
        return 0
    if func._overloadpacket in _LOOKUPS:
        return 2 * written
    return written + sum(_bytes(leaf) for leaf in tree_leaves(given) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> int:
    """Bytes in memory: an expanded tensor has fewer than its shape says."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
