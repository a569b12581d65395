"""Checkpoints and logs of the recipes, written to a temporary file and renamed, so that no half file is left."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from optim import MuonAdamW


def save_checkpoint(path: Path, optim: MuonAdamW, stage: int, step: int, **more: object) -> None:
    aside = path.with_suffix(".tmp")
    torch.save({"optim": optim.state_dict(), "stage": stage, "step": step, **more}, aside)
    aside.replace(path)


def load_checkpoint(path: Path, optim: MuonAdamW) -> tuple[int, int]:
    """(stage, step) to resume from; (0, 0) without a checkpoint. Only tensors are loaded: nothing is unpickled."""
    if not path.exists():
        return 0, 0
    found = torch.load(path, weights_only=True)
    optim.load_state_dict(found["optim"])
    return int(found["stage"]), int(found["step"])


def log_line(path: Path, **values: object) -> None:
    line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
    with path.open("a") as log:
        log.write(line + "\n")
    print(line, flush=True)
