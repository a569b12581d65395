"""Fitted scorers of a model."""

from __future__ import annotations

from typing import Any

from salience.vlm.families import Adapter
from salience.vlm.methods.saliency import Saliency
from salience.vlm.model_scorer import model_scorer, require_same_tower
from salience.vlm.scorers.scorer import Scorer


def scorers_for(adapter: Adapter) -> dict[int, Scorer]:
    """Return seed -> scorer for all scorers that were made for exactly this model; the next number without a seed.

    They lie in `salience` in the model's folder or hub repository and its subfolders `seed-*`, else they are the
    bundled ones.

    Raises:  ValueError where one in the model's own folder was trained on another vision tower
    """
    home = model_scorer(adapter).folder
    if home is None:
        return {}
    found: dict[int, Scorer] = {}
    for folder in [home, *sorted(home.glob("seed-*"))]:
        scorer = Scorer.from_pretrained(folder)
        require_same_tower(Saliency(scorer=scorer), adapter)
        training: Any = scorer.config.training or {}
        seed = training.get("seed", len(found))
        found[seed if seed not in found else max(found) + 1] = scorer
    return found
