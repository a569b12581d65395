"""Folder format of a scorer: `config.json` beside `model.safetensors`, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from torch import Tensor

from salience.core.files import read_json, write_atomic
from salience.vlm.scorers.scorer_config import ScorerConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def write_folder(folder: Path, config: ScorerConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a scorer's two files and leave all others in the folder alone.

    Each file is written to a temporary name and renamed, the weights first, so that a new folder counts as a scorer's
    only once both are complete.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomic(folder / WEIGHTS_NAME, save(tensors, metadata={"format": "pt"}))
    write_atomic(folder / CONFIG_NAME, json.dumps(asdict(config), indent=2, sort_keys=True) + "\n")


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
