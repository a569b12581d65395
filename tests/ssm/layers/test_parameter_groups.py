"""Parameter groups: the state space's parameters are never decayed, in our layers, copies, and other people's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from salience import BiMamba, Mamba, MambaLM, parameter_groups


def names(model: nn.Module) -> dict[str, set[str]]:
    """Group -> the names of its parameters."""
    by_id = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, lr=2e-3, weight_decay=0.1, ssm_lr=5e-4)
    return {group["name"]: {by_id[id(p)] for p in group["params"]} for group in groups}


MAMBA = {
    "decay": {"in_proj.weight", "conv1d.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight"},
    "no_decay": {"conv1d.bias"},
    "ssm": {"A_log", "D", "dt_proj.bias"},
}


def test_a_layer_its_copy_and_its_pickle() -> None:
    layer = Mamba(8)
    for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert names(twin) == MAMBA


def test_rates() -> None:
    groups = parameter_groups(Mamba(8), lr=2e-3, weight_decay=0.1)
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert rates == {"decay": (2e-3, 0.1), "no_decay": (2e-3, 0.0), "ssm": (1e-3, 0.0)}
    torch.optim.AdamW(groups)


def test_both_directions() -> None:
    assert names(BiMamba(8))["ssm"] == {"A_log", "D", "dt_proj.bias", "A_b_log", "D_b", "dt_proj_b.bias"}
    assert names(BiMamba(8, form="hydra"))["ssm"] == {"A_log", "D", "dt_proj.bias"}


def test_a_language_model_has_everything_once() -> None:
    model = MambaLM(vocab_size=16, d_model=8, n_layers=1)
    groups = names(model)
    assert sum(map(len, groups.values())) == len(list(model.parameters()))  # the tied head is the embedding
    assert {"backbone.layers.0.mixer.A_log", "backbone.layers.0.mixer.dt_proj.bias"} <= groups["ssm"]
    assert {"backbone.norm_f.weight", "backbone.layers.0.norm.weight"} <= groups["no_decay"]


def test_transformers_mixers_are_known() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, state_size=4))
    mixer = "backbone.layers.0.mixer"
    assert names(model)["ssm"] == {f"{mixer}.A_log", f"{mixer}.D", f"{mixer}.dt_proj.bias"}


def test_frozen_parameters_stay_out() -> None:
    layer = Mamba(8)
    layer.A_log.requires_grad_(False)
    assert names(layer)["ssm"] == {"D", "dt_proj.bias"}
    with pytest.raises(ValueError, match="model must have a trainable parameter"):
        parameter_groups(layer.requires_grad_(False), lr=1e-3, weight_decay=0.1)


def test_negative_rates_are_told() -> None:
    with pytest.raises(ValueError, match="ssm_lr must be a number of at least 0, not -1"):
        parameter_groups(Mamba(8), lr=1e-3, weight_decay=0.1, ssm_lr=-1)
