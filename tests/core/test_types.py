"""The types pruning's parts hand to each other, and the device."""

from __future__ import annotations

import pytest
import torch

from salience.core.backend import resolve_device
from salience.core.types import VisualGrid


def test_grid() -> None:
    assert VisualGrid(rows=3, columns=4).n == 12
    with pytest.raises(ValueError, match="rows and columns must be at least 1, not 0 and 4"):
        VisualGrid(rows=0, columns=4)


def test_device() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")).type == "cpu"
    assert resolve_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpux", ""])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(ValueError, match=r"^device .*\.$"):
        resolve_device(name)
