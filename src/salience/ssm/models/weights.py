"""Files of a saved model: reading and writing of weights and JSON, checks of weights, names in published layouts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.files import read_json, write_atomic

LAYOUTS = ("hf", "original")
HEAD, EMBEDDING = "lm_head.weight", "backbone.embeddings.weight"
ORIGINAL_EMBEDDING = "backbone.embedding.weight"  # also in early -hf files; all other names are the same

CONFIG = "config.json"
SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def find_model(
    path_or_id: str | Path, *, revision: str | None, allow_pickle: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Folder of a model, fetched from the hub for an id, and its config.json. Raises: ValueError without one."""
    folder = _find_folder(path_or_id, allow_pickle=allow_pickle, revision=revision)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} is no model's folder: it has no {CONFIG}.")
    return folder, read_object(folder / CONFIG)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises: ValueError when it holds none."""
    found = read_json(file)
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold a JSON object, not {found!r:.40}.")
    return found


def write_object(file: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, its keys sorted."""
    write_atomic(file, json.dumps(value, indent=2, sort_keys=True) + "\n")


def _find_folder(path_or_id: str | Path, *, allow_pickle: bool, revision: str | None) -> Path:
    folder = Path(path_or_id)
    if folder.is_dir():
        return folder
    name = str(path_or_id)
    if isinstance(path_or_id, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"{name!r} is neither a model's folder nor a hub id of the form 'owner/name'.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"{name!r} is no folder, and fetching it needs huggingface_hub (extra 'vlm').") from error
    wanted = ["*.json", "*.safetensors", *(["pytorch_model*.bin"] if allow_pickle else [])]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the hub's errors, and those of the network below it, have no common base
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ValueError(f"no model {name!r}: no such folder, and the hub does not give it ({reason}).") from error


def read_weights(folder: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    """The weights in a folder by the names of its layout: safetensors, whole or in shards; a .bin only when asked for.

    Raises:  ValueError when there are none, a shard is missing or a file is damaged
    """
    for whole, index in ((SAFE, SAFE_INDEX), (PICKLED, PICKLED_INDEX)):
        if (folder / whole).is_file():
            files = [folder / whole]
        elif (folder / index).is_file():
            files = [folder / name for name in sorted(set(read_object(folder / index).get("weight_map", {}).values()))]
        else:
            continue
        if whole == PICKLED and not allow_pickle:
            raise ValueError(f"{folder} has its weights pickled ({files[0].name}): read them with allow_pickle=True.")
        weights: dict[str, Tensor] = {}
        for file in files:
            weights |= _read(file)
        return weights
    raise ValueError(f"{folder} is no model's folder: it has no {SAFE}, and no {SAFE_INDEX}.")


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}, which its index names.")
    try:
        if file.suffix == ".safetensors":
            found: dict[str, Tensor] = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {str(error).splitlines()[0] if str(error) else type(error)}.") from error
    except Exception as error:  # pickle.UnpicklingError and its kin: whatever torch's restricted loader refuses
        raise ValueError(f"{file} holds something else than weights, which torch's loader refuses.") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{file} must hold tensors by name, and holds something else.")
    return found


def check_weights(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Raise a ValueError unless the names and shapes are those wanted."""
    missing, surplus = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or surplus:
        told = [f"{what} {_few(names)}" for what, names in (("lacks", missing), ("has the surplus", surplus)) if names]
        raise ValueError(f"{where} does not hold the weights its {CONFIG} describes: it {' and '.join(told)}.")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            shape = tuple(wanted[name].shape)
            raise ValueError(f"{where} has a {name} of shape {tuple(tensor.shape)}, and its {CONFIG} wants {shape}.")


def require_own_weights(model: nn.Module, fresh: Callable[[], nn.Module]) -> None:
    """Raise a ValueError unless the model's weights are those that a fresh one of its config has, all of them at hand.

    fresh: makes one; nothing is allocated
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        wanted = fresh().state_dict()
    found = model.state_dict()
    changed = sorted(set(wanted) ^ set(found))
    changed += [name for name, x in found.items() if name in wanted and not _at_hand(x, wanted[name])]
    if changed:
        raise ValueError(
            f"{type(model).__name__} can't be saved with parts that are not its own, {_few(changed)}: merge, "
            "dequantise or unload what was put on it first."
        )


def _at_hand(found: object, wanted: Tensor) -> bool:
    plain = isinstance(found, Tensor) and type(found) in (Tensor, nn.Parameter) and not found.is_meta
    return plain and found.is_floating_point() and found.shape == wanted.shape  # type: ignore[attr-defined]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write safetensors beside `file` and rename them into place; never the whole model in memory a second time."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    os.close(handle)
    try:
        save_file(dict(weights), aside, metadata={"format": "pt"})
        Path(aside).chmod(file.stat().st_mode & 0o777 if file.exists() else 0o644)
        Path(aside).replace(file)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
