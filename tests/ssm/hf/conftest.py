"""Tiny random models with S6 mixers, built from configs, and what compares a fused one with transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.core.transformers_names import passed_cache

KINDS = ["mamba", "falcon_mamba", "jamba", "zamba"]
SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 20,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
S6: dict[str, Any] = {**SIZES, "num_hidden_layers": 2, "state_size": 5, "time_step_rank": 3}
HYBRID: dict[str, Any] = {
    **SIZES, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2, "mamba_d_state": 5,
    "mamba_dt_rank": 3,
}  # fmt: skip


def build_model(kind: str, **options: Any) -> Any:
    """A random model in float32, evaluating; every weight is moved from where it starts, so that each one counts."""
    import transformers

    if kind in ("mamba", "falcon_mamba"):
        name = {"mamba": "Mamba", "falcon_mamba": "FalconMamba"}[kind]
        config = getattr(transformers, f"{name}Config")(**{**S6, **options})
    elif kind == "jamba":
        given = {**HYBRID, "num_hidden_layers": 3, "attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 1}
        config = transformers.JambaConfig(**{**given, "num_experts_per_tok": 1, **options})
    else:
        given = {**HYBRID, "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]}
        config = transformers.ZambaConfig(**{**given, "n_mamba_heads": 2, **options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                much = 1.0 if "x_proj" in name else 0.1  # enough that dt, B and C depend on the input
                parameter.add_(much * torch.randn_like(parameter))
    model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """`build(kind, **config)` -> a random model of "mamba", "falcon_mamba", "jamba" or "zamba"."""
    return build_model


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(kind: str) -> Any:
    """A random model of each kind, transformers' own."""
    return build_model(kind)


@pytest.fixture
def fused(model: Any) -> Iterator[Any]:
    """A fused copy of `model`, same weights."""
    twin = copy.deepcopy(model)
    with salience.fuse(twin):
        yield twin


@pytest.fixture(scope="session")
def ids() -> Callable[..., Tensor]:
    """`ids(rows, length)` -> token ids, none of them padding."""

    def draw(rows: int, length: int) -> Tensor:
        return torch.randint(1, 48, (rows, length), generator=torch.Generator().manual_seed(rows * 1000 + length))

    return draw


@pytest.fixture(scope="session")
def new_cache() -> Callable[[Any], Any]:
    def make(model: Any) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=model.config)

    return make


@pytest.fixture(scope="session")
def logits() -> Callable[..., Tensor]:
    """`logits(model, ids, cache=None, **options)`: each family calls its cache differently."""

    def run(model: Any, tokens: Tensor, cache: Any = None, **options: Any) -> Tensor:
        if cache is None:
            options.setdefault("use_cache", False)
        else:
            options |= passed_cache(model, cache) | {"use_cache": True}
        out: Tensor = model(input_ids=tokens, **options).logits
        return out

    return run


@pytest.fixture(scope="session")
def near() -> Callable[..., None]:
    """`near(got, wanted)`: float32 sums in another order differ in the last bits only, 1e-5 of the largest value."""

    def check(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        assert bool(wanted.isfinite().all()) and bool(got.isfinite().all())
        difference = float((got - wanted).detach().abs().max())
        assert difference <= tolerance * float(wanted.detach().abs().max()), difference

    return check
