"""Search for the scorer made for a model: in its folder, on the Hugging Face hub, or bundled; check of its tower."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from salience.core.files import bundled_model, read_json
from salience.vlm.families import Adapter, same_adapters, same_tower, unlike
from salience.vlm.methods.base import Method
from salience.vlm.scorers.scorer_config import CONFIG_NAME, WEIGHTS_NAME

_log = logging.getLogger("salience")
FOLDER = "salience"  # the scorer's, inside the model's folder or repository
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class FoundScorer:
    """A search's outcome: the scorer's folder, None if there is none, and a clause for each place that has none."""

    folder: Path | None = None
    not_in: tuple[str, ...] = ()


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return _HUB_ID.fullmatch(name) is not None


def model_scorer(adapter: Adapter) -> FoundScorer:
    """Look for the scorer made for exactly this model: its own, else the bundled one if that fits its vision tower.

    Raises:  ValueError when the model's repository has a scorer's config and its weights can't be fetched
    """
    model = adapter.model
    name, revision = str(getattr(model, "name_or_path", "") or ""), getattr(model.config, "_commit_hash", None)
    own = own_scorer(name, revision)
    config = bundled_model() / FOLDER / CONFIG_NAME
    if own.folder is None and config.is_file():
        if same_tower(read_json(config).get("model"), adapter.fingerprint()):
            return FoundScorer(folder=config.parent)
        return replace(own, not_in=(*own.not_in, "the bundled scorer is made for another vision tower"))
    return own


def own_scorer(name: str, revision: str | None = None) -> FoundScorer:
    """Look for a scorer in a model's folder, or in its hub repository: first in the local cache, then on the hub.

    Args:    name: as `from_pretrained` takes it   revision: the repository's commit or branch; None for its default
    Raises:  ValueError when the repository has a scorer's config and its weights can't be fetched
    """
    folder = Path(name or ".") / FOLDER
    if name and (folder / CONFIG_NAME).is_file():
        return FoundScorer(folder=folder)
    if not is_hub_id(name) or Path(name).exists():
        return FoundScorer(not_in=(f"{folder} has no {CONFIG_NAME}",) if name else ())
    where = f"the hub repository {name}" + (f" at {revision[:12]}" if revision else "")
    config, reason = _fetched(name, CONFIG_NAME, revision)
    if config is None:
        return FoundScorer(not_in=(f"{where} {reason.format(file=f'{FOLDER}/{CONFIG_NAME}')}",))
    weights, reason = _fetched(name, WEIGHTS_NAME, revision)
    if weights is None:
        raise ValueError(f"{where} has a scorer's config, but {reason.format(file=f'{FOLDER}/{WEIGHTS_NAME}')}.")
    return FoundScorer(folder=config.parent)


def _fetched(name: str, file: str, revision: str | None) -> tuple[Path | None, str]:
    """One file of the scorer in a hub repository, from the local cache if it is there; else a clause why not."""
    try:
        from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        return None, "was not asked for {file}, since huggingface_hub is not installed (extra 'vlm')"
    path = f"{FOLDER}/{file}"
    cached = try_to_load_from_cache(name, path, revision=revision)
    if isinstance(cached, str):
        return Path(cached), ""
    if cached is _CACHED_NO_EXIST and revision is not None:  # a branch may have got the file since
        return None, "has no {file}"
    try:
        return Path(hf_hub_download(name, path, revision=revision)), ""
    except Exception as error:  # errors of the hub and of the network share no base class
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None, "has no {file}"
        return None, f"can't be asked for {{file}} ({type(error).__name__})"


def require_same_tower(method: Method, adapter: Adapter) -> None:
    """Raise a ValueError when a scorer in the method was trained on another vision tower than this model's.

    A scorer without a fingerprint passes. Other PEFT adapters in the tower, which change its features a little, give a
    warning.
    """
    if not (towers := method.towers()):
        return
    mine = adapter.fingerprint()
    for made_for in towers:
        if not same_tower(made_for, mine):
            raise ValueError(
                f"the scorer of method {method.name!r} was trained on another vision tower than this model's "
                f"({unlike(made_for, mine)}), whose features it cannot rate: train one with `salience fit`; if the "
                "towers are near enough, pass salience.vlm.methods.saliency.Saliency(scorer=..., any_tower=True)."
            )
        if not same_adapters(made_for, mine):
            _log.warning(
                "method %r: its scorer was trained on this vision tower with other PEFT adapters in it, or none; the "
                "features differ a little from those of the training.",
                method.name,
            )
