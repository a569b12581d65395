"""Checkpoints that survive a kill at any moment: one safetensors file, written aside and renamed.

A file holds the model, the optimiser's state and the training loop's progress as JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.files import write_atomic

NAME = "state.safetensors"


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Keep the folder of an interrupted run with the same identity; remove any other content."""
    key = json.dumps(identity, sort_keys=True)
    mark = folder / "identity.json"
    if not mark.is_file() or mark.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        write_atomic(mark, key)


def save(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Mapping[str, Any]) -> None:
    """Replace the folder's checkpoint. progress: JSON values; numbers come back exact to the last bit"""
    from safetensors.torch import save as pack

    # Copies, since tied weights share memory, which the format refuses.
    tensors = {f"model.{name}": tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value.detach().cpu().clone() for name, value in state.items()}
    write_atomic(folder / NAME, pack(tensors, metadata={"progress": json.dumps(progress)}))


def resume(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Load the folder's checkpoint into both. Returns its progress, or None without a checkpoint."""
    from safetensors import safe_open

    if not (folder / NAME).is_file():
        return None
    with safe_open(folder / NAME, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        progress = json.loads(stored.metadata()["progress"])
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, part = name.split(".", 2)
            state.setdefault(int(index), {})[part] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    assert isinstance(progress, dict)
    return progress
