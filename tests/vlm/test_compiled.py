"""torch.compile with a fixed count: the graphs hold the model alone, and fit every picture after the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import salience

OPTIONS = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": [0, 3, 6]}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


def pictures(family: Any) -> list[dict[str, Any]]:
    """Prompts of one shape, each of other words and pictures."""
    return [family.batch([1, 2], seed=seed) for seed in range(3)]


def compiled(model: Any, way: str) -> Any:
    if way == "forward":
        model.forward = torch.compile(model.forward, backend="eager")
        return model
    if way == "in place":
        model.compile(backend="eager")
        return model
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(("name", "way"), [
    ("llava", "forward"), ("llava", "in place"), ("qwen2_5_vl", "wrapper"),
])  # fmt: skip
@torch.no_grad()
def test_no_recompile_from_picture_to_picture(name: str, way: str, tiny_family: Any) -> None:
    family = tiny_family(name)
    plain, batches = family.model(), pictures(family)
    with salience.prune(plain, "random", keep=0.5):
        wanted = [plain(**batch).logits for batch in batches]
    model = compiled(family.model(), way)
    with salience.prune(model, "random", keep=0.5):
        got = [model(**batches[0]).logits]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        torch.compiler.set_stance("fail_on_recompile")
        got += [model(**batch).logits for batch in batches[1:]]
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


def test_compiling_what_is_being_pruned(tiny_family: Any) -> None:
    family = tiny_family("llava")
    model, batches = family.model(), pictures(family)
    with torch.no_grad(), salience.prune(model, "cls-attention", keep=0.5):
        wanted = [model(**batch).logits for batch in batches]
        model.forward = torch.compile(model.forward, backend="eager")
        got = [model(**batches[0]).logits]
        torch.compiler.set_stance("fail_on_recompile")
        got += [model(**batch).logits for batch in batches[1:]]
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_generate_compiled_with_a_static_cache(name: str, tiny_family: Any) -> None:
    """As transformers does by itself on a GPU; the ids are the dynamic cache's, uncompiled."""
    from transformers import CompileConfig

    family = tiny_family(name)
    model, batches = family.model(), pictures(family)
    config = CompileConfig(backend="eager", mode=None)
    config._compile_all_devices = True  # on a CPU too
    static = {**OPTIONS, "cache_implementation": "static", "compile_config": config}
    with salience.prune(model, "uniform", keep=0.5):
        wanted = [model.generate(**batch, **OPTIONS) for batch in batches]
        got = [model.generate(**batches[0], **static)]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        torch.compiler.set_stance("fail_on_recompile")
        got += [model.generate(**batch, **static) for batch in batches[1:]]
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@torch.no_grad()
def test_a_compiled_tower_still_tells_its_attention(tiny_family: Any) -> None:
    family = tiny_family("llava")
    model, batch = family.model(), family.batch([1, 2])
    with salience.prune(model, "cls-attention", keep=0.5):
        wanted = model(**batch).logits
    model.model.vision_tower.compile(backend="eager")
    with salience.prune(model, "cls-attention", keep=0.5):
        assert torch.equal(model(**batch).logits, wanted)
