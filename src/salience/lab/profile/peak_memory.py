"""Memory of a call: the most bytes of tensors in memory at a time, and the bytes of a key-value cache."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that follows every storage made by operators until it is freed."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()
        self._watch: dict[int, weakref.finalize[..., Any]] = {}
        for tensor in known:
            self._add(tensor, counted=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Tensors that existed before the call do not count.
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf, counted=False)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf, counted=True)
        return out

    def _add(self, tensor: torch.Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes() if counted else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        self._watch[key] = weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._watch.pop(key, None)
        self.live -= size

    def forget(self) -> None:
        for watch in list(self._watch.values()):
            watch.detach()


def peak_bytes(call: Callable[[], object], weights: Iterable[torch.Tensor] = ()) -> int:
    """The most bytes of tensors in memory at a time while `call` runs, `weights` included.

    On CUDA this is the allocator's own peak. Elsewhere (a CPU, or `meta`, where nothing is allocated) the storages made
    by operators are followed, without scratch space inside an operator.
    """
    held = list(weights)
    if held and held[0].device.type == "cuda":
        torch.cuda.synchronize(held[0].device)
        torch.cuda.reset_peak_memory_stats(held[0].device)
        call()
        torch.cuda.synchronize(held[0].device)
        return int(torch.cuda.max_memory_allocated(held[0].device))
    gc.collect()
    mode = _LiveBytes(held)
    with torch.no_grad(), mode:
        call()
    mode.forget()
    return sum(tensor.nbytes for tensor in held) + mode.peak


def kv_bytes(cache: Any) -> int:
    """Bytes of the keys and values in a transformers cache."""
    layers = [layer for layer in cache.layers if isinstance(getattr(layer, "keys", None), torch.Tensor)]
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
