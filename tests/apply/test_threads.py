"""Two models pruned at once in two threads say what each says alone, and so does one model called from two."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch

import salience

CALLS = 6
OPTIONS = {"do_sample": False, "max_new_tokens": 2, "min_new_tokens": 2, "suppress_tokens": [0, 3, 6]}


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each gives, all begun at one moment."""
    gate = Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        gate.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result() for each in [pool.submit(begin, work) for work in works]]


def saying(model: Any, batches: list[dict[str, Any]], method: str, keep: float) -> Callable[[], list[torch.Tensor]]:
    """Enters, calls and leaves, again and again."""

    def work() -> list[torch.Tensor]:
        found = []
        for batch in batches:
            with salience.prune(model, method, keep=keep) as pruned, torch.no_grad():
                found += [model(**batch).logits, model.generate(**batch, **OPTIONS)]
                found += [image.kept for image in pruned.trace.images]
        return found

    return work


@pytest.mark.parametrize("names", [("llava", "llava"), ("llava", "qwen2_5_vl")], ids=str)
def test_two_models(names: tuple[str, str], tiny_family: Any) -> None:
    works = []
    for name, method, keep in zip(names, ("divprune", "uniform"), (0.5, 0.25), strict=True):
        family = tiny_family(name)
        works.append(saying(family.model(), [family.batch([1, 2], seed=i) for i in range(CALLS)], method, keep))
    alone = [work() for work in works]
    for got, wanted in zip(at_once(*works), alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_one_model_from_two_threads(tiny_family: Any) -> None:
    """The tower's hooks tell the calls apart. The trace is of either."""
    family = tiny_family("llava")
    model, batches = family.model(), [family.batch([1, 2], seed=i) for i in range(2)]

    def work(batch: dict[str, Any]) -> Callable[[], list[torch.Tensor]]:
        def run() -> list[torch.Tensor]:
            with torch.no_grad():
                return [model(**batch).logits for _ in range(CALLS)]

        return run

    with salience.prune(model, "cls-attention", keep=0.5):
        alone = [work(batch)() for batch in batches]
        together = at_once(*(work(batch) for batch in batches))
    for got, wanted in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_one_model_entered_by_two_threads_is_refused_to_one(tiny_family: Any) -> None:
    model = tiny_family("llava").model()
    handles: list[Any] = []

    def enter() -> str:
        try:
            handles.append(salience.prune(model, "uniform", keep=0.5))
        except ValueError as error:
            return str(error)
        return "entered"

    for _ in range(10):
        said = sorted(at_once(enter, enter))
        assert said == ["entered", "the model is already being pruned: undo that first."]
        handles.pop().undo()
    assert "forward" not in model.__dict__
