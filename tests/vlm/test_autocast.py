"""Under torch.autocast every method runs where the unpruned model does, and chooses in float32."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import salience
from salience.vlm.methods.registry import method_class

METHODS = [
    "uniform", "cls-attention", "divprune", "vispruner", "visionzip", "prumerge", "prumerge+", "tome", "fastv",
    "pyramiddrop", "sparsevlm", "scorer", "then",
]  # fmt: skip
DTYPES = [torch.bfloat16, torch.float16]


@pytest.fixture
def deep(tiny_family: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`deep(name)`: a family with four layers."""

    def made(name: str) -> Any:
        family = tiny_family(name)
        monkeypatch.setitem(sys.modules["tiny_families"].TEXT, "num_hidden_layers", 4)
        return family

    return made


def method_of(name: str) -> Any:
    if name == "scorer":
        return salience.Scorer(24)
    if name == "then":
        return salience.vlm.methods.compose.then(method_class("visionzip")(), method_class("sparsevlm")(), keep=0.7)
    return name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_forward_and_generate(name: str, dtype: torch.dtype, deep: Any) -> None:
    """The call's own logits are near float32's: what is kept is alike."""
    family = deep("llava")
    model, batch = family.model(), family.batch([1, 2])
    with torch.no_grad(), salience.prune(model, method_of(name), keep=0.5) as pruned:
        wanted = model(**batch).logits
        exact = pruned.trace
        with torch.autocast("cpu", dtype=dtype):
            got = model(**batch).logits
            generated = model.generate(**batch, do_sample=False, max_new_tokens=3, min_new_tokens=3)
    assert generated.shape == (2, batch["input_ids"].shape[1] + 3)
    same = all(torch.equal(a.kept, b.kept) for a, b in zip(pruned.trace.images, exact.images, strict=True))
    if same and got.shape == wanted.shape:
        assert (got.float() - wanted).abs().max() < 0.2 * wanted.abs().max()  # 8 bits a number, four layers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", ["divprune", "prumerge+", "sparsevlm"])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "gemma3", "aya_vision", "llava_next"])
def test_families(name: str, method: str, dtype: torch.dtype, tiny_family: Any) -> None:
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    method = "uniform" if (name, method) == ("aya_vision", "prumerge+") else method  # its attention can't be read
    with torch.no_grad(), salience.prune(model, method, keep=0.5), torch.autocast("cpu", dtype=dtype):
        model(**batch)
        model.generate(**batch, do_sample=False, max_new_tokens=2)


@pytest.mark.parametrize("method", ["cls-attention", "fastv"])
def test_all_tokens_are_the_model_bit_for_bit(method: str, deep: Any) -> None:
    family = deep("llava")
    model, batch = family.model(), family.batch([1, 2])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = model(**batch).logits
        with salience.prune(model, method, keep=1):
            assert torch.equal(model(**batch).logits, wanted)


@pytest.mark.parametrize("name", ["divprune", "prumerge+", "sparsevlm"])
def test_eager_attention(name: str, deep: Any) -> None:
    """Its masks are numbers, in the dtype of the hidden states."""
    family = deep("llava")
    model, batch = family.model(), family.batch([1, 2])
    model.set_attn_implementation("eager")
    with torch.no_grad(), salience.prune(model, name, keep=0.5), torch.autocast("cpu", dtype=torch.float16):
        assert model(**batch).logits.isfinite().all()
        model.generate(**batch, do_sample=False, max_new_tokens=2)


def test_a_method_is_asked_in_the_models_dtype(deep: Any) -> None:
    """A scorer of one's own need not know of autocast."""
    family = deep("llava")
    model, batch = family.model(), family.batch([1])
    layer = torch.nn.Linear(24, 1)
    seen: list[Any] = []

    class Mine(salience.Method):
        def score(self, ctx: Any) -> torch.Tensor:
            scores: torch.Tensor = layer(ctx.features)[:, 0]
            seen.append((ctx.features.dtype, scores.dtype))
            return scores

    with torch.no_grad(), salience.prune(model, Mine(), keep=0.5), torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch)
    assert seen == [(torch.float32, torch.float32)]


def test_gradients(deep: Any) -> None:
    family = deep("llava")
    model, batch = family.model(), family.batch([1])
    with salience.prune(model, "prumerge+", keep=0.5), torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] == 3, -100)).loss.backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad.isfinite().all()
