"""Memory that is used again: never while a tensor is on it, and only so much of it waits."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest
import torch

from salience import selective_scan
from salience.ops.simd import buffer_pool as reuse
from salience.ops.simd import empty

N = reuse.ROUND  # float32 numbers: four times the smallest block


@pytest.fixture(autouse=True)
def _nothing_waits() -> None:
    reuse._waiting.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3,), (0, 5), (2, 300, 700), (1, 2048, 1025)])
def test_it_is_a_plain_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = empty(*shape, dtype=dtype)
    assert x.dtype == dtype and x.shape == shape and x.is_contiguous() and not x._is_view()
    assert x.untyped_storage().nbytes() == x.nbytes  # torch.save writes all of a storage
    assert torch.equal(x.fill_(2) * 3, torch.full(shape, 6.0, dtype=dtype))


def test_memory_is_lent_again_once_the_last_tensor_on_it_is_gone() -> None:
    x = empty(N)
    address, part = x.data_ptr(), x[5:7]
    part.fill_(1.0)
    del x
    assert empty(N).data_ptr() != address and torch.equal(part, torch.ones(2))
    array = part.numpy()
    del part
    assert empty(N).data_ptr() != address and array.tolist() == [1.0, 1.0]
    del array
    assert address in {x.data_ptr() for x in [empty(N) for _ in range(2)]}


def test_only_so_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "WAITING", 3 * 4 * N)
    held = [empty(N) for _ in range(5)]
    assert not any(reuse._waiting.values())
    held.clear()
    assert {size: len(blocks) for size, blocks in reuse._waiting.items()} == {4 * N: 3}


def test_a_scan_does_not_depend_on_what_was_there() -> None:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    mask = torch.arange(600) % 7 != 3
    u, dt, B, C, z = normal(1, 600, 300), normal(1, 600, 300), normal(1, 600, 4), normal(1, 600, 4), normal(1, 600, 300)
    leaves = [x.requires_grad_() for x in (u, dt, B, C, z)]
    A = -normal(300, 4).exp()

    def found() -> list[torch.Tensor]:
        y = selective_scan(u, dt, A, B, C, z=z, dt_softplus=True, mask=mask[None], backend="cpu")
        return [y.detach().clone(), *torch.autograd.grad(y.square().sum(), leaves)]

    want = found()
    sizes = {size: len(blocks) for size, blocks in reuse._waiting.items()}
    assert sizes  # the outputs were large enough
    held = [empty(size // 4).fill_(torch.nan) for size, count in sizes.items() for _ in range(count)]
    held.clear()
    assert all(torch.equal(x, y) for x, y in zip(found(), want, strict=True))


def test_threads_never_share_a_block() -> None:
    wrong = []

    def work(k: int) -> None:
        for _ in range(30):
            x = empty(N).fill_(k)
            if not bool((x[::4096] == k).all()):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _child(pipe: multiprocessing.connection.Connection) -> None:
    torch.set_num_threads(1)  # libgomp would wait for its parent's threads
    pipe.send(float(empty(N).fill_(5.0).sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forking beside threads
def test_a_forked_child_has_memory_of_its_own() -> None:
    x = empty(N).fill_(3.0)
    waiting = empty(N).fill_(4.0)
    address = waiting.data_ptr()
    del waiting
    here, there = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=_child, args=(there,))
    child.start()
    assert here.poll(60) and here.recv() == 5.0 * N
    child.join(60)
    again = empty(N)
    assert again.data_ptr() == address and float(again[0]) == 4.0 and float(x[0]) == 3.0
