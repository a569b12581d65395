"""Load the vision-language model that a command is about, or say in one sentence why it can't be."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from salience.cli.options import Command

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WEIGHTS = ("*.safetensors", "*.bin")


class Loaded(NamedTuple):
    """A model in evaluation mode on its device, its processor, the name to show, and whether it is the bundled one."""

    model: Any
    processor: Any
    name: str
    bundled: bool


def model_option(text: str = "Model folder or hub id (default: the bundled model).") -> Callable[[Command], Command]:
    """The option --model."""
    return click.option("--model", "model", default=None, metavar="DIR", help=text)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' own bars and doubts on stderr: what matters of them comes as one of our sentences."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_vlm(name: str | None, device: str = "auto") -> Loaded:
    """The model in folder `name`, or of that hub id, or the bundled one when it is None; float32 on a CPU.

    Raises: ValueError when there is no such folder, it has no configuration, weights or processor, its weights do not
        fit its configuration, or the model is of no family that can be pruned; ImportError without transformers.
    """
    import salience
    from salience.core.backend import resolve_device
    from salience.families import adapter_for

    target = resolve_device(device)
    folder = salience.bundled_model() if name is None else Path(name)
    with quiet_transformers():
        source = _checked(folder, name)
        model = _model(source, on_cpu=target.type == "cpu")
        processor = _processor(source)
    adapter_for(model)  # refuses what can't be pruned
    bundled = name is None or (folder.is_dir() and folder.resolve() == salience.bundled_model().resolve())
    shown = "salience/llava-scenes (bundled)" if bundled else source
    return Loaded(model.eval().to(target), processor, shown, bundled)


def _checked(folder: Path, name: str | None) -> str:
    """What `from_pretrained` is to load: a folder that holds what it must, or a hub id."""
    from salience.profiling.skeleton import read_config

    if not folder.is_dir():
        if name is None:
            raise ValueError(f"the bundled model is missing from this installation ({folder}); name one with --model.")
        if not _HUB_ID.fullmatch(name) or folder.exists():
            raise ValueError(f"model: {name} is neither a model's folder nor a hub id of the form owner/name.")
        read_config(name)
        return name
    read_config(folder)
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        raise ValueError(f"model: {folder} has no weights (no model.safetensors).")
    return str(folder)


def _model(source: str, *, on_cpu: bool) -> Any:
    from transformers import AutoModelForImageTextToText

    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            source, dtype="float32" if on_cpu else "auto", output_loading_info=True
        )
    except ImportError:
        raise
    except Exception as error:  # transformers, safetensors, the hub and the network below it share no base class
        raise ValueError(f"model: {source} can't be loaded ({_reason(error)}).") from error
    # Missing weights would be drawn at random with no more than a warning, and the answers would mean nothing.
    absent = sorted(info["missing_keys"])
    if absent:
        raise ValueError(f"model: the weights in {source} lack {len(absent)} tensors, {absent[0]} for one.")
    return model


def _processor(source: str) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(source)
    except ImportError:
        raise
    except Exception as error:  # as above
        raise ValueError(f"model: {source} has no processor that loads ({_reason(error)}).") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ValueError(f"model: {source} has no processor of pictures and text, only a {type(processor).__name__}.")
    return processor


def _reason(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0].strip()
    return line.rstrip(".") or type(error).__name__
