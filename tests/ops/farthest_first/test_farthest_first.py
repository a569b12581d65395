"""Farthest first: the definition beside a plain loop, and every backend the very choices of the definition."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from salience.ops.farthest_first import farthest_first

from .triton_cases import COUNT, distances


def by_loop(far: list[list[float]], count: int) -> list[int]:
    n = len(far)
    chosen = [max(range(n), key=lambda i: min(far[i][j] for j in range(n) if j != i))]
    while len(chosen) < count:
        rest = [i for i in range(n) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(far[i][j] for j in chosen)))
    return chosen


def drawn(batch: int, n: int) -> Tensor:
    points = torch.randn(batch, n, 5, generator=torch.Generator().manual_seed(n))
    return torch.cdist(points, points)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("count", [1, 2, 9, 37])
def test_as_a_plain_loop(backend: str, count: int) -> None:
    distance = drawn(3, 37)
    wanted = [by_loop(far, count) for far in distance.tolist()]
    assert farthest_first(distance, count, backend=backend).tolist() == wanted


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_ties_go_to_the_earlier_and_nothing_comes_twice(backend: str) -> None:
    distance = distances()
    wanted = [by_loop(far, 19) for far in distance.tolist()]
    assert farthest_first(distance, 19, backend=backend).tolist() == wanted
    same = torch.zeros(1, 7, 7)  # all in one place
    assert farthest_first(same, 7, backend=backend).tolist() == [list(range(7))]


def test_of_one_and_of_none() -> None:
    assert farthest_first(torch.zeros(2, 1, 1), 1).tolist() == [[0], [0]]
    assert farthest_first(torch.zeros(0, 4, 4), 2).shape == (0, 2)


def test_numbers_that_are_none_are_never_chosen_twice() -> None:
    distance = drawn(1, 12)
    distance[0, 4], distance[0, :, 4] = float("nan"), float("nan")
    assert sorted(farthest_first(distance, 12)[0].tolist()) == list(range(12))


def test_the_distances_stay_as_they_are() -> None:
    distance = drawn(1, 12)
    before = distance.clone()
    farthest_first(distance, 5)
    assert torch.equal(distance, before)


@pytest.mark.parametrize(("distance", "count", "what"), [
    (torch.zeros(3, 3), 1, "distance must be"), (torch.zeros(1, 3, 2), 1, "distance must be"),
    (torch.zeros(1, 3, 3, dtype=torch.float64), 1, "distance must be"), (torch.zeros(1, 3, 3), 4, "count must be"),
    (torch.zeros(1, 3, 3), 0, "count must be"),
])  # fmt: skip
def test_bad_input(distance: Tensor, count: int, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        farthest_first(distance, count)


@pytest.mark.parametrize("interpreted", [True, False], ids=["interpreted", "compiled"])
def test_triton(interpreted: bool) -> None:
    """In a process of its own: the interpreter is chosen when triton is imported; compiling needs no GPU."""
    pytest.importorskip("triton")
    here = Path(__file__).parent
    env = os.environ | {"TRITON_INTERPRET": str(int(interpreted)), "PYTHONPATH": str(here.parent)}
    command = [sys.executable, "-m", f"{here.name}.triton_cases"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    if interpreted:
        assert json.loads(done.stdout.splitlines()[-1]) == farthest_first(distances(), COUNT).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    for distance, count in ((distances(), COUNT), (drawn(3, 576), 144)):
        assert farthest_first(distance.cuda(), count).tolist() == farthest_first(distance, count).tolist()
