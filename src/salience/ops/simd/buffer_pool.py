"""Memory for outputs and scratch, used again: fresh pages cost about as much as a kernel that writes on them.

The C library returns freed memory to the system, and Linux clears every page of the next output anew, a fault at a
time: two threads that wrote 12 MB of gradients spent a third of their time there. A block that no tensor is on any
more waits here for the next output of its size, as on a GPU.
"""

from __future__ import annotations

import math
import mmap
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROUND = 1 << 18  # bytes that blocks are multiples of; smaller tensors are left to torch
LARGE = 1 << 21  # bytes of a large page, where Linux is asked for these: one fault instead of 512
WAITING = 1 << 28  # bytes that may wait
KINDS = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16, torch.bfloat16: np.int16}

_waiting: dict[int, deque[_Block]] = {}  # by size; appended to and popped from in one step, which needs no lock


class _Block:
    """Memory of the process' own, `size` bytes from `start` on, which is where a large page begins."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(-1, size + LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.start = -np.frombuffer(self.memory, np.uint8, 1).ctypes.data % LARGE
        whole = size // LARGE * LARGE  # behind it, a large page would hold memory that nobody uses
        if whole and hasattr(mmap, "MADV_HUGEPAGE"):
            self.memory.madvise(mmap.MADV_HUGEPAGE, self.start, whole)


class _Lent(np.ndarray[Any, Any]):
    """What is on a block. The tensors on it hold this array; when it goes, the block may be lent again."""

    block: _Block

    def __del__(self) -> None:
        size = self.block.size
        if size + sum(each * len(blocks) for each, blocks in list(_waiting.items())) <= WAITING:
            _waiting.setdefault(size, deque()).append(self.block)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """As `torch.empty`, on the CPU: anything may be in it. Its storage cannot be resized."""
    size = math.prod(shape) * dtype.itemsize
    if size < ROUND or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(shape, dtype=dtype)
    rounded = -(-size // ROUND) * ROUND
    try:
        block = _waiting[rounded].pop()
    except (KeyError, IndexError):
        block = _Block(rounded)
    lent = _Lent(shape, KINDS[dtype], block.memory, block.start)
    lent.block = block
    made = torch.from_numpy(lent)
    if made.dtype == dtype:
        return made
    return torch.empty(0, dtype=dtype).set_(made.untyped_storage(), 0, shape, made.stride())
