"""The saliency scorer: a small network that gives each visual token one number."""

from __future__ import annotations

import json
import pkgutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.files import write_atomic
from salience.vlm.scorers.scorer_config import (
    ARCHITECTURES,
    CONFIG_NAME,
    WEIGHTS_NAME,
    ScorerConfig,
    find_files,
    read_config,
)


class Scorer(nn.Module):
    """A network of one architecture with its config; `network` maps features (..., n, d) to logits (..., n).

    Args:    d_features: width of the features   options: the other fields of `ScorerConfig`, by name
    Raises:  ValueError when a width is not a whole number of at least 1, or the architecture is unknown
    """

    def __init__(self, d_features: int, **options: Any) -> None:
        super().__init__()
        self.config = ScorerConfig(d_features=d_features, **options)
        self.network: nn.Module = pkgutil.resolve_name(ARCHITECTURES[self.config.architecture])(self.config)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., n, d) -> logits (..., n), in the scorer's own dtype (float32 unless it was moved)."""
        logits: Tensor = self.network(features.to(next(self.parameters()).dtype))
        return logits

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `config.json` and `model.safetensors` into `folder` and leave its other files alone.

        The weights come first, and each file is renamed once it is complete: a new folder has a config only with both.
        """
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        write_atomic(Path(folder) / WEIGHTS_NAME, save(tensors, metadata={"format": "pt"}))
        write_atomic(Path(folder) / CONFIG_NAME, json.dumps(asdict(self.config), indent=2, sort_keys=True) + "\n")
        return Path(folder)

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, *, revision: str | None = None) -> Scorer:
        """A scorer from a folder, or from the Hugging Face hub by its id ("owner/name"), in evaluation mode on the CPU.

        Raises:  ValueError when there is no such folder or id, a file is missing, or the config or weights are not a
                 scorer's
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        config_file, weights_file = find_files(path_or_id, revision)
        scorer = cls(**vars(read_config(config_file)))
        try:
            scorer.network.load_state_dict(load_file(weights_file))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{weights_file} does not hold the weights its {CONFIG_NAME} describes.") from error
        if not all(bool(value.isfinite().all()) for value in scorer.parameters()):
            raise ValueError(f"{weights_file} holds weights that are NaN or infinite, so no token can be ranked.")
        return scorer.eval()


def untrained_scorer(d_features: int, *, seed: int = 0, hidden: int = 64) -> Scorer:
    """A scorer with random weights, the control for a trained one; the global random generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Scorer(d_features, hidden=hidden).eval()
