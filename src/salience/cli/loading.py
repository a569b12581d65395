"""Loading of the vision-language model of a command."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from salience.cli.options import Command
from salience.core.files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from salience.vlm.families import Adapter
    from salience.vlm.methods.base import Method
    from salience.vlm.methods.budget import Budget


class LoadedModel(NamedTuple):
    """A model in evaluation mode on its device, its processor, its name in outputs; bundled: whether it is ours."""

    model: PreTrainedModel
    processor: ProcessorMixin
    name: str
    bundled: bool


def model_option(text: str = "Model folder or hub id (default: the bundled model).") -> Callable[[Command], Command]:
    """The option --model."""
    return click.option("--model", "model", default=None, metavar="DIR", help=text)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off transformers' progress bars and warnings."""
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


@dataclass(kw_only=True)
class ModelSource:
    """An existing vision-language model, by its configuration; nothing else of it is loaded yet.

    source: argument of `from_pretrained`   device: the one to run on   name: in outputs
    """

    source: str
    device: torch.device
    name: str
    bundled: bool

    @cached_property
    def processor(self) -> ProcessorMixin:
        """The processor. Raises: ValueError when there is none that loads"""
        with quiet_transformers():
            return _processor(self.source)

    @cached_property
    def outline(self) -> Adapter | None:
        """The adapter of the same model without weights, for checks; None if the model can't be built without them.

        Raises: ValueError when the model is of no family that can be pruned
        """
        import torch

        from salience.lab.profile.meta_model import build, read_config
        from salience.vlm.families import adapter_for

        try:
            with quiet_transformers():
                model = build(read_config(self.source), torch.float32)
        except Exception:  # such as a remote or quantised model; loading its weights names the error
            return None
        return adapter_for(model)

    def load(self) -> LoadedModel:
        """Load the model with its weights, in float32 on a CPU.

        Raises: ValueError when its weights do not fit its configuration, it has no processor, or it can't be pruned
        """
        from salience.vlm.families import adapter_for

        processor = self.processor  # the small files first
        with quiet_transformers():
            model = _model(self.source, on_cpu=self.device.type == "cpu")
        adapter_for(model)  # refuses models that can't be pruned
        return LoadedModel(model.eval().to(self.device), processor, self.name, self.bundled)

    def require_method(self, method: str, budget: Budget, seed: int) -> None:
        """Refuse, before any weights load, a method or budget that `salience.prune` would refuse.

        Raises: ValueError when there is no such method, its scorer can't be read or has another width, or the budget
            does not fit
        """
        from salience.vlm.methods.resolve import resolve_method
        from salience.vlm.methods.saliency import Saliency
        from salience.vlm.model_scorer import FoundScorer, own_scorer
        from salience.vlm.scorers.scorer import Scorer

        outline = self.outline
        named = method not in ("saliency", "auto")
        own = FoundScorer() if named else own_scorer(self.source)
        if named:
            chosen = resolve_method(method, seed=seed, home=None, has_attention=True)
        elif own.folder is not None:
            chosen = Saliency(scorer=Scorer.from_pretrained(own.folder))
        elif outline is not None and _bundled_width() not in (None, outline.d_features):
            has_attention = outline.tower_attention is not None
            chosen = resolve_method(method, seed=seed, home=None, has_attention=has_attention, not_in=own.not_in)
        else:
            return  # the bundled scorer, if the tower fits: only its weights tell
        if outline is not None:
            chosen.check(d_features=outline.d_features)
        if budget.mass is not None and not chosen.scored:
            budget.count(1)  # raises
        if outline is None:
            return
        if budget.mass is None and outline.n_tokens is not None:
            budget.count(outline.n_tokens)
        if not chosen.towers():  # a scorer's tower is compared by its weights
            _try_on(outline.model, chosen, budget)


def _bundled_width() -> int | None:
    import salience

    file = salience.bundled_model() / "salience" / "config.json"
    return int(read_json(file)["d_features"]) if file.is_file() else None


def _try_on(model: PreTrainedModel, method: Method, budget: Budget) -> None:
    """Prune a model without weights and undo it, which checks the shapes alone."""
    from salience.vlm.prune import prune

    log = logging.getLogger("salience")
    level = log.level
    log.setLevel(logging.ERROR)  # the notes are logged once, for the real model
    try:
        prune(model, method, **budget.given).undo()
    except ValueError:
        raise
    except Exception:  # a failure that needs missing weights is no reason to refuse
        return
    finally:
        log.setLevel(level)


def find_vlm(name: str | None, device: str = "auto") -> ModelSource:
    """Find the model of a folder or a hub id, by default the bundled one, and read its configuration alone.

    Raises: ValueError when there is no such folder or device, or the folder has no configuration or weights;
        ImportError without transformers.
    """
    import salience
    from salience.core.backend import resolve_device

    target = resolve_device(device)
    folder = salience.bundled_model() if name is None else Path(name)
    with quiet_transformers():
        source = _checked(folder, name)
    bundled = name is None or (folder.is_dir() and folder.resolve() == salience.bundled_model().resolve())
    shown = "salience/llava-scenes (bundled)" if bundled else source
    return ModelSource(source=source, device=target, name=shown, bundled=bundled)


def load_vlm(name: str | None, device: str = "auto") -> LoadedModel:
    """Find a model and load it, with the errors of `find_vlm` and `ModelSource.load`."""
    return find_vlm(name, device).load()


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights."""
    return any(path.suffix in (".safetensors", ".bin") for path in folder.glob("*"))


def _checked(folder: Path, name: str | None) -> str:
    """The argument of `from_pretrained`: a folder with a configuration and weights, or a hub id."""
    from salience.lab.profile.meta_model import read_config
    from salience.vlm.model_scorer import is_hub_id

    if not folder.is_dir():
        if name is None:
            raise ValueError(f"the bundled model is missing from this installation ({folder}); name one with --model.")
        if not is_hub_id(name) or folder.exists():
            raise ValueError(f"model: {name} is neither a model's folder nor a hub id of the form owner/name.")
        read_config(name)
        return name
    read_config(folder)
    if not has_weights(folder):
        raise ValueError(f"model: {folder} has no weights (no model.safetensors).")
    return str(folder)


def _model(source: str, *, on_cpu: bool) -> PreTrainedModel:
    from transformers import AutoModelForImageTextToText

    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            source, dtype="float32" if on_cpu else "auto", output_loading_info=True
        )
    except ImportError:
        raise
    except Exception as error:  # errors of transformers, safetensors, the hub and the network share no base class
        raise ValueError(f"model: {source} can't be loaded ({_reason(error)}).") from error
    # transformers initialises missing weights at random and only warns; the answers would mean nothing.
    absent = sorted(info["missing_keys"])
    if absent:
        raise ValueError(f"model: the weights in {source} lack {len(absent)} tensors, {absent[0]} for one.")
    return model


def _processor(source: str) -> ProcessorMixin:
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
