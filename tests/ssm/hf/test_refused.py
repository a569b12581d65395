"""What fuse does not know is a sentence, and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import salience


def tiny(name: str, **options: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(vocab_size=32, hidden_size=32, num_hidden_layers=2, **options)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 32}
LAYERS = ["mamba", "mamba"]
MAMBA_2: list[tuple[str, str, dict[str, Any]]] = [
    ("Mamba2", "Mamba2Mixer", {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}),
    ("Bamba", "BambaMixer", {**HEADS, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}),
    ("Zamba2", "Zamba2MambaMixer", {**HEADS, "n_mamba_heads": 4, "mamba_headdim": 16, "layers_block_type": LAYERS}),
    ("FalconH1", "FalconH1Mixer", {**HEADS, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16}),
    ("GraniteMoeHybrid", "GraniteMoeHybridMambaLayer", {
        **HEADS, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "layer_types": LAYERS,
    }),
    ("NemotronH", "NemotronHMamba2Mixer", {**HEADS, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mixer", "options"), MAMBA_2, ids=[row[0] for row in MAMBA_2])
def test_mamba_2_is_refused_by_name(name: str, mixer: str, options: dict[str, Any]) -> None:
    model = tiny(name, **options)
    with pytest.raises(ValueError, match=rf"model's layer '.*' is a {mixer}, which is Mamba-2: fuse runs S6"):
        salience.fuse(model)


def test_a_model_without_a_mixer() -> None:
    model = tiny("Llama", **HEADS)
    known = "MambaMixer, FalconMambaMixer, JambaMambaMixer, ZambaMambaMixer"
    with pytest.raises(
        ValueError, match=f"model is a LlamaForCausalLM of type 'llama', which has no S6 .*: fuse knows {known}"
    ):
        salience.fuse(model)
    with pytest.raises(ValueError, match="model is a Linear, which has no S6 mixer"):
        salience.fuse(nn.Linear(2, 2))


def test_other_arguments(build: Any) -> None:
    with pytest.raises(ValueError, match="model must be a transformers model, not a str"):
        salience.fuse("state-spaces/mamba-130m-hf")
    with pytest.raises(ValueError, match="backend must be auto, reference, cpu or triton, not 'cuda'"):
        salience.fuse(build("mamba"), backend="cuda")


def test_fusing_twice(model: Any) -> None:
    with salience.fuse(model):
        before = [dict(module.__dict__) for module in model.modules()]
        with pytest.raises(ValueError, match=rf"model is a {type(model).__name__} of type .* that is fused already"):
            salience.fuse(model)
        with pytest.raises(ValueError, match="fused already"):
            salience.fuse(nn.ModuleList([model]))
        assert before == [dict(module.__dict__) for module in model.modules()]


def test_fusing_twice_names_a_way_out_that_is_there(build: Any) -> None:
    model = build("mamba")
    salience.fuse(model)
    with pytest.raises(ValueError, match=r"which salience\.Fused\.of\(model\) gives too"):
        salience.fuse(model)
    salience.Fused.of(model).undo()
    with salience.fuse(model):
        pass


def test_a_forward_that_somebody_replaced(build: Any) -> None:
    model = build("mamba")
    mixer = model.backbone.layers[1].mixer
    mixer.forward = lambda *args, **kwargs: args[0]
    with pytest.raises(ValueError, match=r"layer 'backbone.layers.1.mixer' has a forward of its own \(function\)"):
        salience.fuse(model)
    assert "forward" not in model.backbone.layers[0].mixer.__dict__  # nothing was begun


def test_a_subclass(build: Any) -> None:
    model = build("mamba")
    mixer = model.backbone.layers[0].mixer
    mixer.__class__ = type("Mine", (type(mixer),), {})
    salience.fuse(model).undo()  # only the name is new
    mixer.__class__ = type("Mine", (type(mixer),), {"forward": lambda self, x, **kwargs: x})
    with pytest.raises(
        ValueError, match=r"is a Mine with a forward of its own, .* only MambaMixer itself can be fused"
    ):
        salience.fuse(model)


def test_a_width_nobody_runs(build: Any) -> None:
    with pytest.raises(ValueError, match="has a convolution of width 9: fuse runs widths 2 to 8"):
        salience.fuse(build("mamba", conv_kernel=9))
