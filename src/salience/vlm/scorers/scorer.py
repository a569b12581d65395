"""The saliency scorer: a very small fully connected network that gives each visual token one number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.files import write_atomic
from salience.core.json_text import read_json

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """What a scorer is, as its config.json holds it.

    d_features: width of the vision tower's features.   hidden: width of the one hidden layer.
    objective: what it was trained for, "untrained" if for nothing.
    model: the fingerprint of the vision tower it was trained on (`adapter.fingerprint()`), None if on none: then it may
    be used on any tower of its width, otherwise on that one alone.
    training: how it was trained (steps, seed, ...), for the reader.
    """

    d_features: int
    hidden: int = 64
    objective: str = "untrained"
    model: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("d_features", "hidden"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if not (self.model is None or isinstance(self.model, Mapping)):
            raise ValueError(f"model must be a vision tower's fingerprint, a mapping, not {self.model!r:.60}.")


class Scorer(nn.Module):
    """LayerNorm(d) -> Linear(d, h) -> GELU -> Linear(h, 1): each token by itself, its position unseen.

    Args:    d_features, hidden, objective, model, training: see `ScorerConfig`
    Raises:  ValueError when a width is not a whole number of at least 1
    """

    def __init__(
        self,
        d_features: int,
        *,
        hidden: int = 64,
        objective: str = "untrained",
        model: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = ScorerConfig(
            d_features=d_features, hidden=hidden, objective=objective, model=model, training=training
        )
        self.norm = nn.LayerNorm(d_features)
        self.fc1 = nn.Linear(d_features, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., n, d) -> logits (..., n), in the scorer's own dtype (float32 unless it was moved)."""
        hidden = self.act(self.fc1(self.norm(features.to(self.norm.weight.dtype))))  # (..., n, h)
        logits: Tensor = self.fc2(hidden).squeeze(-1)  # (..., n)
        return logits

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `config.json` and `model.safetensors` into `folder`, leaving whatever else it holds.

        Each is written aside and renamed, the weights first: a new folder is a scorer's only once both are there.
        """
        from safetensors.torch import save

        target = Path(folder)
        config = json.dumps(asdict(self.config), indent=2, sort_keys=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_atomic(target / WEIGHTS_NAME, save(weights, metadata={"format": "pt"}))
        write_atomic(target / CONFIG_NAME, config + "\n")
        return target

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, *, revision: str | None = None) -> Scorer:
        """A scorer from a folder, or from the Hugging Face hub by its id ("owner/name"), in evaluation mode on the CPU.

        Raises:  ValueError when there is no such folder or id, a file is missing, or the config or weights are not a
                 scorer's
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        config_file, weights_file = _files(path_or_id, revision)
        config = _read_config(config_file)
        scorer = cls(**config)
        try:
            scorer.load_state_dict(load_file(weights_file))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{weights_file} does not hold the weights its {CONFIG_NAME} describes.") from error
        if not all(bool(value.isfinite().all()) for value in scorer.parameters()):
            raise ValueError(f"{weights_file} holds weights that are NaN or infinite, by which no token can be ranked.")
        return scorer.eval()


def _files(path_or_id: str | Path, revision: str | None) -> tuple[Path, Path]:
    folder = Path(path_or_id)
    if folder.is_dir():
        missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} is no scorer's folder: it has no {' and no '.join(missing)}.")
        return folder / CONFIG_NAME, folder / WEIGHTS_NAME
    name = str(path_or_id)
    if isinstance(path_or_id, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"{name!r} is neither a scorer's folder nor a hub id of the form 'owner/name'.")
    return _download(name, revision)


def _download(name: str, revision: str | None) -> tuple[Path, Path]:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ValueError(f"{name!r} is no folder, and fetching it needs huggingface_hub (extra 'vlm').") from error
    try:
        config = hf_hub_download(name, CONFIG_NAME, revision=revision)
        weights = hf_hub_download(name, WEIGHTS_NAME, revision=revision)
    except Exception as error:  # the hub's errors, and those of the network below it, have no common base
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ValueError(f"no scorer {name!r}: no such folder, and the hub does not give it ({reason}).") from error
    return Path(config), Path(weights)


def _read_config(file: Path) -> dict[str, Any]:
    config = read_json(file)
    known = {field.name for field in fields(ScorerConfig)}
    if not isinstance(config, dict) or "d_features" not in config:
        raise ValueError(f"{file} is no scorer's config: it has no d_features.")
    unknown = sorted(set(config) - known)
    if unknown:
        raise ValueError(f"{file} has fields this version does not know: {', '.join(unknown)}.")
    return config


def untrained_scorer(d_features: int, *, seed: int = 0, hidden: int = 64) -> Scorer:
    """A scorer with random weights, the control that a trained one must beat; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Scorer(d_features, hidden=hidden).eval()
