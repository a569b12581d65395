"""Advice about large pages: the tensor is the same, and Linux has noted it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from salience.ops.simd import on_large_pages


@pytest.mark.parametrize("n", [0, 10, 1 << 21])
def test_the_tensor_is_itself_and_keeps_its_values(n: int) -> None:
    x = torch.arange(n, dtype=torch.float32)
    want = x.clone()
    assert on_large_pages(x) is x and torch.equal(x, want)


def _flags(address: int) -> list[str]:
    """The flags of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if first == "VmFlags:" and inside:
            return rest
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= address < high
    return []


@pytest.mark.skipif(
    sys.platform != "linux" or not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="Linux's large pages"
)
def test_linux_is_asked_for_large_pages() -> None:
    x = torch.empty(8 << 20, dtype=torch.float32)
    middle = x.data_ptr() + x.nbytes // 2
    assert on_large_pages(x) is x and "hg" in _flags(middle)
