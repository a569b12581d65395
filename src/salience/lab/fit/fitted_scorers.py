"""Which fitted scorers there are for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import salience
from salience.vlm.families import Adapter, same_tower
from salience.vlm.methods.saliency import Saliency
from salience.vlm.same_tower import require_same_tower
from salience.vlm.scorers.scorer import Scorer


def scorers_for(adapter: Adapter) -> dict[int, Scorer]:
    """Seed -> scorer made for exactly this model; empty where there is none.

    They are `<model folder>/salience` and its subfolders `seed-*`, else the bundled ones.

    Raises:  ValueError when one in the model's own folder was trained on another vision tower
    """
    home = _home(adapter)
    if home is None:
        return {}
    found: dict[int, Scorer] = {}
    for folder in [home, *sorted(home.glob("seed-*"))]:
        scorer = Scorer.from_pretrained(folder)
        require_same_tower(Saliency(scorer=scorer), adapter)
        found[_seed(scorer, found)] = scorer
    return found


def _home(adapter: Adapter) -> Path | None:
    own = Path(str(getattr(adapter.model, "name_or_path", "") or "/dev/null")) / "salience"
    if (own / "config.json").is_file():
        return own
    bundled = salience.bundled_model() / "salience"
    if (bundled / "config.json").is_file():
        made_for = Scorer.from_pretrained(bundled).config.model
        if same_tower(made_for, adapter.fingerprint()):
            return bundled
    return None


def _seed(scorer: Scorer, taken: dict[int, Scorer]) -> int:
    """The seed it was fitted with, else the next number that is free."""
    training: Any = scorer.config.training or {}
    seed = training.get("seed", len(taken))
    return seed if seed not in taken else max(taken) + 1
