"""Two models pruned at once in two threads say what each says alone, and so does one model called from two."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
import torch

import salience

CALLS = 6
OPTIONS = {"do_sample": False, "max_new_tokens": 2, "min_new_tokens": 2, "suppress_tokens": [0, 3, 6]}


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Results of all, begun at one moment."""
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


def same(a: Any, b: Any) -> bool:
    """Whether two answers or traces are equal, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return same(tuple(vars(a).values()), tuple(vars(b).values())) if hasattr(a, "__dict__") else bool(a == b)


def crowd(model: Any, batches: list[dict[str, Any]], pruned: Any, calls: int) -> None:
    """A thread for each batch, `calls` in all: each answer and each trace is the one it has alone."""

    def once(batch: dict[str, Any], kind: int) -> tuple[Any, Any]:
        with torch.no_grad():
            answer = model.generate(**batch, **OPTIONS) if kind else model(**batch).logits
        return answer, pruned.trace

    alone = [[once(batch, kind) for kind in range(2)] for batch in batches]

    def work(i: int) -> Callable[[], int]:
        kinds = [int(call % 8 == 7) for call in range(calls // len(batches))]
        return lambda: sum(not same(once(batches[i], kind), alone[i][kind]) for kind in kinds)

    assert sum(at_once(*(work(i) for i in range(len(batches))))) == 0


def many(family: Any, threads: int) -> list[dict[str, Any]]:
    """Batches of different shapes."""
    return [family.batch([1 + i % 3] + [1] * (i % 2), seed=i) for i in range(threads)]


@pytest.fixture
def deep_llava(tiny_family: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The family with four layers, so that every method finds its places."""
    family = tiny_family("llava")
    monkeypatch.setitem(sys.modules["tiny_families"].TEXT, "num_hidden_layers", 4)
    return family


KINDS = ["uniform", "cls-attention", "divprune", "prumerge+", "tome", "scorer", "fastv", "pyramiddrop", "sparsevlm"]


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_threads_on_one_handle(kind: str, deep_llava: Any) -> None:
    """Hooks, traces and all else that a call needs are its own."""
    model = deep_llava.model()
    method: Any = salience.Scorer(24) if kind == "scorer" else kind
    before = hooks(model)
    with salience.prune(model, method, keep=0.5) as pruned:
        crowd(model, many(deep_llava, 20), pruned, 1000)
        assert hooks(model) == before  # also between calls
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("method", ["uniform", "sparsevlm"])
@pytest.mark.parametrize("name", ["aya_vision", "mistral3", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_next"])
def test_threads_of_every_kind_of_family(name: str, method: str, tiny_family: Any) -> None:
    """Families without a file of their own record through transformers' hooks, others through ours."""
    family = tiny_family(name)
    model = family.model()
    before = hooks(model)
    with salience.prune(model, method, keep=0.5) as pruned:
        crowd(model, many(family, 6), pruned, 60)
    assert hooks(model) == before


def hooks(model: Any) -> list[Any]:
    """All hooks on all modules."""
    return [[*module._forward_pre_hooks, *module._forward_hooks] for module in model.modules()]


def test_threads_of_an_offloaded_model(tiny_family: Any) -> None:
    """accelerate takes a module's weights away behind a call, so that calls take turns."""
    from accelerate import cpu_offload

    family = tiny_family("llava")
    model = cpu_offload(family.model(), execution_device=torch.device("cpu"))
    with salience.prune(model, "cls-attention", keep=0.5) as pruned:
        crowd(model, many(family, 4), pruned, 40)


def test_a_thread_that_called_nothing_reads_the_last_trace(tiny_family: Any) -> None:
    """As where one thread generates and another reads the streamer."""
    family = tiny_family("llava")
    model, batches = family.model(), [family.batch([1 + i]) for i in range(2)]
    with torch.no_grad(), salience.prune(model, "uniform", keep=0.5) as pruned:
        at_once(lambda: model.generate(**batches[1], **OPTIONS))
        assert len(pruned.trace.images) == 2
        model(**batches[0])
        at_once(lambda: model.generate(**batches[1], **OPTIONS))
        assert len(pruned.trace.images) == 1  # its own


def test_tasks_of_an_event_loop_have_their_own_traces(tiny_family: Any) -> None:
    import asyncio

    family = tiny_family("llava")
    model, batches = family.model(), [family.batch([1 + i]) for i in range(3)]

    async def ask(batch: dict[str, Any], pruned: Any) -> int:
        with torch.no_grad():
            model(**batch)
        await asyncio.sleep(0)  # the other tasks call
        return len(pruned.trace.images)

    async def all_of_them() -> list[int]:
        with salience.prune(model, "uniform", keep=0.5) as pruned:
            counts = await asyncio.gather(*(ask(batch, pruned) for batch in batches))
            assert len(pruned.trace.images) == 3  # the thread's last
            return counts

    assert asyncio.run(all_of_them()) == [1, 2, 3]


def test_undo_while_another_thread_generates(deep_llava: Any) -> None:
    """A call that began pruned ends pruned; then the model is as before."""
    model, batch = deep_llava.model(), deep_llava.batch([2])
    begun, undone = Event(), Event()
    before = hooks(model.model.language_model)

    class Streamer:
        def put(self, value: Any) -> None:
            begun.set()
            undone.wait(30)

        def end(self) -> None:
            pass

    options = {**OPTIONS, "max_new_tokens": 6, "min_new_tokens": 6}
    handle = salience.prune(model, "fastv", keep=0.25)
    wanted = model.generate(**batch, **options)

    def leave() -> None:
        assert begun.wait(30)
        handle.undo()
        with pytest.raises(ValueError, match="still runs"):
            salience.prune(model, "uniform", keep=0.5)
        with torch.no_grad():
            assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1]  # a new call is not pruned
        undone.set()

    got, _ = at_once(lambda: model.generate(**batch, **options, streamer=Streamer()), leave)
    assert torch.equal(got, wanted)
    assert "forward" not in model.__dict__
    assert hooks(model.model.language_model) == before  # the tower has what the unpruned call records with


def test_hidden_states_recorded_in_another_thread(tiny_family: Any) -> None:
    """Hooks removed from the tower after an encoding are never those of another call's language model."""
    family = tiny_family("aya_vision")
    model, batches = family.model(), [family.batch([1 + i], seed=i) for i in range(2)]

    def states(batch: dict[str, Any]) -> Any:
        with torch.no_grad():
            return model(**batch, output_hidden_states=True).hidden_states

    with salience.prune(model, "uniform", keep=0.5):
        alone = states(batches[0])

        def plain() -> None:
            for _ in range(20):
                with torch.no_grad():
                    model(**batches[1])

        found, _ = at_once(lambda: [states(batches[0]) for _ in range(10)], plain)
    assert all(same(each, alone) for each in found)


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
        assert said[0] == "entered"
        assert said[1].startswith("the model is already being pruned: undo that first")
        handles.pop().undo()
    assert "forward" not in model.__dict__
