"""A small random transformers Mamba, saved in both published layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from salience import MambaLM

VOCABULARY, ROWS = 45, 48  # the original layout pads its embedding to a multiple of 8
SIZES: dict[str, Any] = {
    "vocab_size": ROWS, "hidden_size": 20, "state_size": 5, "num_hidden_layers": 2, "time_step_rank": 3,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
LAYOUTS = ["hf", "original"]


def near(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    """float32 sums in another order differ in the last bits: 1e-5 of the largest value."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    assert bool(wanted.isfinite().all()) and bool(got.isfinite().all())
    difference = float((got - wanted).detach().abs().max())
    assert difference <= tolerance * float(wanted.detach().abs().max()), difference


def build_theirs(**options: Any) -> Any:
    """transformers' own, every weight moved from where it starts, so that each one counts."""
    from transformers import MambaConfig, MambaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MambaForCausalLM(MambaConfig(**{**SIZES, **options})).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                much = 1.0 if "x_proj" in name else 0.1  # enough that dt, B and C depend on the input
                parameter.add_(much * torch.randn_like(parameter))
    model.generation_config.pad_token_id = 0
    return model


def save_original(hf: Path, folder: Path) -> Path:
    """The folder `hf` again as state-spaces publish theirs: names by hand, both ends of the tied matrix there."""
    weights = load_file(hf / "model.safetensors")
    renamed = {name.replace("backbone.embeddings.", "backbone.embedding."): w for name, w in weights.items()}
    renamed["lm_head.weight"] = renamed["backbone.embedding.weight"].clone()
    folder.mkdir()
    save_file(renamed, folder / "model.safetensors")
    told = {
        "d_model": 20, "n_layer": 2, "vocab_size": VOCABULARY, "ssm_cfg": {"d_state": 5, "dt_rank": 3},
        "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="session")
def theirs() -> Any:
    """Never changed by a test."""
    return build_theirs()


@pytest.fixture(scope="session")
def saved(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Layout -> the folder of `theirs`; never changed by a test."""
    root = tmp_path_factory.mktemp("mamba")
    theirs.save_pretrained(root / "hf")
    return {"hf": root / "hf", "original": save_original(root / "hf", root / "original")}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ours(saved: dict[str, Path], layout: str) -> MambaLM:
    """The same weights in a `MambaLM`, from each layout."""
    model = MambaLM.from_pretrained(saved[layout])
    model.generation_config["pad_token_id"] = 0
    return model


@pytest.fixture(scope="session")
def ids() -> Callable[..., Tensor]:
    """`ids(rows, length)` -> token ids, none of them padding."""

    def draw(rows: int, length: int) -> Tensor:
        g = torch.Generator().manual_seed(rows * 1000 + length)
        return torch.randint(1, VOCABULARY, (rows, length), generator=g)

    return draw
