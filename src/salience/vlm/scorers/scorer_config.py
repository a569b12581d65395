"""Configuration of a scorer, the static table of architectures, and the folder with a scorer's config and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from salience.core.files import read_json

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
#: Name -> "module:class". A class takes a `ScorerConfig`; its module maps features (..., n, d) to logits (..., n).
ARCHITECTURES = {"mlp": "salience.vlm.scorers.mlp:MLP"}


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """Shape and origin of a scorer.

    d_features: width of the vision tower's features.   architecture: a name in `ARCHITECTURES`.
    hidden: width of the hidden layer.   objective: the training objective, "untrained" without one.
    model: fingerprint of the vision tower it was trained on (`adapter.fingerprint()`); it may be used on that tower
    alone. None allows any tower of its width.
    training: steps, seed and other facts of the training, for the reader.
    """

    d_features: int
    architecture: str = "mlp"
    hidden: int = 64
    objective: str = "untrained"
    model: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("d_features", "hidden"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, not {self.architecture!r}.")
        if not (self.model is None or isinstance(self.model, Mapping)):
            raise ValueError(f"model must be a vision tower's fingerprint, a mapping, not {self.model!r:.60}.")


def find_files(path_or_id: str | Path, revision: str | None) -> tuple[Path, Path]:
    """The config and the weights in a folder, or of a hub id "owner/name" after a download.

    Raises:  ValueError when there is no such folder or id, or a file is missing
    """
    folder = Path(path_or_id)
    if folder.is_dir():
        missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} is no scorer's folder: it has no {' and no '.join(missing)}.")
        return folder / CONFIG_NAME, folder / WEIGHTS_NAME
    name = str(path_or_id)
    if isinstance(path_or_id, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"{name!r} is neither a scorer's folder nor a hub id of the form 'owner/name'.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ValueError(f"{name!r} is no folder, and fetching it needs huggingface_hub (extra 'vlm').") from error
    try:
        config = hf_hub_download(name, CONFIG_NAME, revision=revision)
        weights = hf_hub_download(name, WEIGHTS_NAME, revision=revision)
    except Exception as error:  # errors of the hub and of the network share no base class
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ValueError(f"no scorer {name!r}: no such folder, and the hub does not give it ({reason}).") from error
    return Path(config), Path(weights)


def read_config(file: Path) -> ScorerConfig:
    """A scorer's config.

    Raises:  ValueError when the file is no JSON, is not a scorer's config, or has unknown fields
    """
    config = read_json(file)
    if not isinstance(config, dict) or "d_features" not in config:
        raise ValueError(f"{file} is no scorer's config: it has no d_features.")
    unknown = sorted(set(config) - {field.name for field in fields(ScorerConfig)})
    if unknown:
        raise ValueError(f"{file} has fields this version does not know: {', '.join(unknown)}.")
    return ScorerConfig(**config)
