"""Load the vision-language model that a command is about, or say in one sentence why it can't be."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from salience.cli.options import Command
from salience.core.json_text import read_json

if TYPE_CHECKING:
    import torch

    from salience.vlm.families import Adapter

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


@dataclass(kw_only=True)
class Found:
    """A model that is there and whose configuration is one of a vision-language model; nothing of it is loaded yet.

    source: what `from_pretrained` takes   device: where it is to run   name: to show
    """

    source: str
    device: torch.device
    name: str
    bundled: bool

    @cached_property
    def processor(self) -> Any:
        """Raises: ValueError when there is none that loads"""
        with quiet_transformers():
            return _processor(self.source)

    @cached_property
    def outline(self) -> Adapter | None:
        """The model's family on a model without weights, for checks; None where it can't be made without them.

        Raises: ValueError when the model is of no family that can be pruned
        """
        import torch

        from salience.lab.profile.meta_model import build, read_config
        from salience.vlm.families import adapter_for

        try:
            with quiet_transformers():
                model = build(read_config(self.source), torch.float32)
        except Exception:  # whatever a remote or quantised model needs: loading its weights says what is wrong
            return None
        return adapter_for(model)

    def load(self) -> Loaded:
        """The model with its weights, float32 on a CPU.

        Raises: ValueError when its weights do not fit its configuration, or there is no processor
        """
        from salience.vlm.families import adapter_for

        processor = self.processor  # what is small comes first
        with quiet_transformers():
            model = _model(self.source, on_cpu=self.device.type == "cpu")
        adapter_for(model)  # refuses what can't be pruned
        return Loaded(model.eval().to(self.device), processor, self.name, self.bundled)

    def require_method(self, method: str, budget: Mapping[str, Any], seed: int) -> None:
        """Refuse, before any weights load, what `salience.prune` would refuse once they are there.

        Raises: ValueError when there is no such method, its scorer can't be read or has another width, or the budget
            does not go with it
        """
        from salience import Budget
        from salience.vlm.methods.resolve import resolve_method
        from salience.vlm.methods.saliency import Saliency
        from salience.vlm.model_scorer import FoundScorer, own_scorer
        from salience.vlm.scorers.scorer import Scorer

        wanted, outline = Budget(**budget), self.outline
        named = method not in ("saliency", "auto")
        own = FoundScorer() if named else own_scorer(self.source)
        if named:
            chosen = resolve_method(method, seed=seed, home=None, has_attention=True)
        elif own.folder is not None:
            chosen = Saliency(scorer=Scorer.from_pretrained(own.folder))
        elif outline is not None and (width := bundled_width()) is not None and width != outline.d_features:
            has_attention = outline.tower_attention is not None
            chosen = resolve_method(method, seed=seed, home=None, has_attention=has_attention, not_in=own.not_in)
        else:
            return  # the bundled scorer, if the model has the tower it was made for: its weights tell
        if outline is not None:
            chosen.check(d_features=outline.d_features)
        if wanted.mass is not None and not chosen.scored:
            wanted.count(1)  # raises
        if wanted.mass is None and outline is not None and outline.n_tokens is not None:
            wanted.count(outline.n_tokens)
        if outline is not None and not chosen.towers():  # a scorer's tower is compared by its weights
            _admit(outline.model, chosen, budget)


def _admit(model: Any, method: Any, budget: Mapping[str, Any]) -> None:
    """Put a method on a model without weights and take it off again, which looks at the model's shapes alone."""
    import salience

    log = logging.getLogger("salience")
    level = log.level
    log.setLevel(logging.ERROR)  # what stands in for what is told once, of the real model
    try:
        salience.prune(model, method, **budget).undo()
    except ValueError:
        raise
    except Exception:  # what can't be said without weights is said with them
        return
    finally:
        log.setLevel(level)


def bundled_width() -> int | None:
    """Of the features that the bundled scorer reads; None where there is no such scorer."""
    import salience

    file = salience.bundled_model() / "salience" / "config.json"
    return int(read_json(file)["d_features"]) if file.is_file() else None


def find_vlm(name: str | None, device: str = "auto") -> Found:
    """The model in folder `name`, or of that hub id, or the bundled one when it is None, before anything is loaded.

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
    return Found(source=source, device=target, name=shown, bundled=bundled)


def load_vlm(name: str | None, device: str = "auto") -> Loaded:
    """The model in folder `name`, or of that hub id, or the bundled one when it is None; float32 on a CPU.

    Raises: ValueError when there is no such folder, it has no configuration, weights or processor, its weights do not
        fit its configuration, or the model is of no family that can be pruned; ImportError without transformers.
    """
    return find_vlm(name, device).load()


def _checked(folder: Path, name: str | None) -> str:
    """What `from_pretrained` is to load: a folder that holds what it must, or a hub id."""
    from salience.lab.profile.meta_model import read_config

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
