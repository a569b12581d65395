"""Pictures as a model's own processor prepares them: sizes, crops, tiles and splitting follow its settings."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

_FILES = ("processor_config.json", "preprocessor_config.json")
_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}


@dataclass(frozen=True, kw_only=True)
class PreparedPicture:
    """Image arguments of one picture, and their source.

    values: empty without a processor; the family's usual settings are then used.
    name: class of the image processor, empty without one.   note: reason why there is none, a clause; empty with one.
    """

    values: Mapping[str, Tensor]
    name: str = ""
    note: str = ""


def prepared_in(source: str | Path, model_type: str, size: tuple[int, int], *, local: bool = False) -> PreparedPicture:
    """The same with the processor in a model's folder, or of a hub id; only its image processor if need be.

    local: whether to use no network

    Raises:  ValueError when its files exist but can't be read, or it can't prepare such a picture
    """
    from transformers import AutoImageProcessor, AutoProcessor

    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in _FILES):
        return PreparedPicture(values={}, note="there is no processor_config.json or preprocessor_config.json")
    reasons, loaded = [], False
    for kind in (AutoProcessor, AutoImageProcessor):  # the first needs a tokenizer
        try:
            found = kind.from_pretrained(str(source), local_files_only=local)
            loaded = True
            usual = {} if hasattr(found, "image_processor") else _usual(model_type, found)
            return prepared_by(found, size, usual)
        except Exception as error:  # transformers, the hub, the network and missing packages share no base class
            line = str(error).strip().partition("\n")[0].strip().rstrip(".")
            reasons.append(f"{type(error).__name__}: {line}" if line else type(error).__name__)
            last = error
    if loaded:
        raise ValueError(f"picture: the model's processor can't prepare {size[0]} x {size[1]} pixels ({reasons[-1]}).")
    if folder.is_dir() and not isinstance(last, ImportError):
        raise ValueError(f"model: the processor's settings in {folder} can't be read ({reasons[-1]}).") from last
    return PreparedPicture(values={}, note=f"its processor can't be loaded ({reasons[-1]})")


def prepared_by(
    processor: Any, size: tuple[int, int], usual: Mapping[str, Any] = MappingProxyType({})
) -> PreparedPicture:
    """Return the output of a processor, or an image processor, for a picture of `size`, width and height in pixels.

    usual: arguments of the image processor
    Raises:  ValueError when it returns no pixel_values
    """
    from PIL import Image

    picture = Image.new("RGB", size, "grey")
    whole = getattr(processor, "image_processor", None) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns about numpy and names of its own classes
        if whole:
            from salience.lab.evaluate.prompts import prompt_text

            found = processor(images=picture, text=prompt_text(processor, "?"), return_tensors="pt")
        else:
            found = processor(images=picture, return_tensors="pt", **usual)
    values = {name: value for name, value in found.items() if isinstance(value, Tensor) and name not in _TEXT}
    if "pixel_values" not in values:
        raise ValueError(f"processor: a {type(processor).__name__} returns no pixel_values for a picture.")
    images = processor.image_processor if whole else processor
    return PreparedPicture(values=values, name=type(images).__name__)


def _usual(model_type: str, image_processor: Any) -> dict[str, Any]:
    """Arguments that a family's processor always passes to its image processor, independent of the settings."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    if name is None:
        return {}
    import transformers

    try:
        kind = getattr(transformers, name)
        module = importlib.import_module(kind.__module__)
    except (ImportError, AttributeError):
        return {}
    # up to transformers 5.22 a class beside it has them; found by name, because attribute access would warn
    beside = vars(module).get(f"{name}Kwargs") or getattr(kind, "valid_processor_kwargs", None)
    said = getattr(beside, "_defaults", {}).get("images_kwargs", {})
    known = getattr(getattr(image_processor, "valid_kwargs", None), "__annotations__", {})
    return {key: value for key, value in {**getattr(kind, "images_kwargs", {}), **said}.items() if key in known}
