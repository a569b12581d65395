"""Choice of a kernel's channels and warps: timed once for each kind of call, then remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class TileSize:
    """Channels of a program, and its warps."""

    channels: int
    warps: int


#: A lane owns one, two or four channels; the first is taken where nothing can be timed.
BLOCKS = (
    TileSize(channels=32, warps=1),
    TileSize(channels=64, warps=1),
    TileSize(channels=64, warps=2),
    TileSize(channels=128, warps=2),
    TileSize(channels=128, warps=4),
)
#: The interpreter computes every lane in turn: small blocks, so that tests meet several of them.
INTERPRETED = TileSize(channels=4, warps=1)

_found: dict[Hashable, TileSize] = {}
_lock = threading.Lock()


def best_block(key: Hashable, run: Callable[[TileSize], object], *, on_gpu: bool) -> TileSize:
    """The block with which `run` is fastest, timed at the first call with this key.

    `run` must give the same whenever it is repeated. While a CUDA graph is being captured nothing can be timed: then
    the first block is taken, and nothing is remembered.
    """
    if not on_gpu:
        return INTERPRETED
    with _lock:
        if key not in _found:
            if torch.cuda.is_current_stream_capturing():
                return BLOCKS[0]
            from triton.testing import do_bench

            times = {block: do_bench(lambda block=block: run(block), warmup=5, rep=20) for block in BLOCKS}
            _found[key] = min(times, key=lambda block: times[block])
        return _found[key]


def coarse(number: int) -> int:
    """Round to a power of two, so that calls of similar length share their tuning."""
    return number.bit_length()
