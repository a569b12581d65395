"""Cost of a call's operators by stage: operations, bytes moved and number of launches."""

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
from torch.utils.flop_counter import flop_registry

from salience.lab.profile.flops import MAPPING
from salience.lab.profile.roofline import Roofline

_aten = torch.ops.aten
_FLOPS: dict[Any, Callable[..., int]] = {**flop_registry, **MAPPING}
_LOOKUPS = (
    _aten.embedding,
    _aten.index,
    _aten.index_select,
    _aten.gather,
)  # they read only the rows that they return
_UNWRITTEN = (_aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided)


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
