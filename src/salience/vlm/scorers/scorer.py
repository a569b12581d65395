"""The saliency scorer: a small network that gives each visual token one number."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from salience.vlm.scorers.folder import CONFIG_NAME, find_files, read_config, write_folder
from salience.vlm.scorers.scorer_config import ARCHITECTURES, ScorerConfig


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
        """Write `config.json` and `model.safetensors` into `folder` and leave its other files alone."""
        write_folder(Path(folder), self.config, self.network.state_dict())
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
