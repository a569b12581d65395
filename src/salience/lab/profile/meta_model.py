"""A model on `meta` from its configuration alone, and the modules of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from salience.core.files import read_json
from salience.core.transformers_names import check_release

#: Names, in their parent, of modules that turn the tower's tokens into the language model's.
_PROJECTORS = frozenset({"multi_modal_projector", "connector", "merger"})
_PROJECTOR_LISTS = frozenset({"deepstack_merger_list"})
_LANGUAGE_MODELS = ("language_model", "text_model")


def read_config(path_or_id: str | Path) -> Any:
    """Return the configuration in a folder's config.json, or of a hub id.

    Raises:  ValueError in one sentence when there is none, its type is unknown, or it is not a vision-language model's
    """
    from transformers import AutoConfig

    check_release()
    folder = Path(path_or_id)
    if folder.is_dir():
        _check_folder(folder)
    elif isinstance(path_or_id, Path) or str(path_or_id).count("/") != 1 or str(path_or_id).startswith((".", "/", "~")):
        raise ValueError(f"model: {path_or_id} is neither a model's folder nor a hub id of the form owner/name.")
    try:
        config = AutoConfig.from_pretrained(str(path_or_id))
    except ImportError:
        raise
    except Exception as error:  # transformers, the hub and the network below it share no base class
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ValueError(f"model: the configuration of {path_or_id} can't be loaded ({reason}).") from error
    _check_kind(config, str(path_or_id))
    return config


def _check_folder(folder: Path) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    file = folder / "config.json"
    try:
        found = read_json(file)
    except FileNotFoundError:
        raise ValueError(f"model: {folder} is no model's folder (no config.json).") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"model: {file} can't be read as JSON.") from error
    kind = found.get("model_type") if isinstance(found, dict) else None
    if kind not in CONFIG_MAPPING_NAMES:
        raise ValueError(f"model: {folder} is of type {kind!r}, which this transformers does not know.")


def _check_kind(config: Any, name: str) -> None:
    from transformers import AutoModelForImageTextToText

    if type(config) not in AutoModelForImageTextToText._model_mapping or not hasattr(config, "vision_config"):
        raise ValueError(f"model: {name} is of type {config.model_type!r}, which is no vision-language model.")
    if config.vision_config is None:
        raise ValueError(f"model: the configuration of {name} has no vision_config, so no vision tower can be built.")


def build(config: Any, dtype: torch.dtype, kind: type[Any] | None = None) -> Any:
    """Build the model of `config` on `meta`, in evaluation mode: shapes without weights.

    kind: its class, None for the one transformers chooses.
    """
    import copy

    from transformers import AutoModelForImageTextToText

    plain = copy.deepcopy(config)
    plain.__dict__.pop("quantization_config", None)
    with torch.device("meta"):
        if kind is None:
            return AutoModelForImageTextToText.from_config(plain, dtype=dtype).eval()
        return kind._from_config(plain, dtype=dtype).eval()


def dtype_of(config: Any) -> torch.dtype:
    """The dtype in the configuration, float32 if there is none."""
    found = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    if isinstance(found, str):
        found = getattr(torch, found.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else torch.float32


def language_model(model: Any) -> Any:
    """The language model without its head.

    Raises:  ValueError when it is not in the usual place
    """
    for name in _LANGUAGE_MODELS:
        if (found := getattr(model.base_model, name, None)) is not None:
            return found
    raise ValueError(f"model: a {type(model).__name__} has no language_model or text_model.")


def projectors(model: Any) -> list[nn.Module]:
    """The projector's modules; empty if the tower itself returns the language model's tokens."""
    found = []
    for path, module in model.base_model.named_modules():
        parent, _, name = path.rpartition(".")
        if name in _PROJECTORS or parent.rpartition(".")[2] in _PROJECTOR_LISTS:
            found.append(module)
    return found
