"""The entry `prune`: it checks its arguments and starts the pruning."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from salience.vlm.families import Adapter, adapter_for
from salience.vlm.handle import Pruned, refuse_pruned
from salience.vlm.in_llm.dropping import InLLMDropping
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.resolve import resolve_method
from salience.vlm.model_scorer import FoundScorer, model_scorer, require_same_tower
from salience.vlm.original_gaps import OriginalGaps
from salience.vlm.pruned_inputs import Positions
from salience.vlm.pruning import Pruning
from salience.vlm.scorers.scorer import Scorer
from salience.vlm.tower.tower_attention import SUBSTITUTE
from salience.vlm.trial_calls import require_equal, require_positions

_log = logging.getLogger("salience")
_entering = threading.Lock()


def prune(
    model: Any,
    method: str | Path | Method | Scorer = "auto",
    *,
    keep: float | None = None,
    tokens: int | None = None,
    mass: float | None = None,
    min: int | None = None,  # noqa: A002 - the budget's own names
    max: int | None = None,  # noqa: A002
    positions: Positions = "auto",
    seed: int = 0,
) -> Pruned:
    """Prune the visual tokens of every call of `model` until `undo()`, or the end of the `with` block.

    Args:    model: a transformers model of a known family, also in PEFT's or torch.compile's wrapper; only its
             `forward` and `generate` are wrapped
             method: "auto" (the model's scorer, else [CLS] or received attention, else the uniform grid;
             `handle.explain()` says which), "saliency" (the model's scorer: in `salience` in its folder or hub
             repository, or bundled), "random", "uniform", "cls-attention", "divprune", "vispruner", "visionzip",
             "prumerge", "prumerge+", "tome" (inside the vision tower), "fastv", "pyramiddrop", "sparsevlm" (inside the
             language model), a class of your own as "module:Class", a Method, a Scorer, or a scorer's folder or hub id
             keep: ratio in (0, 1]   tokens: exact count per picture   mass: share of the scores' mass; exactly one
             min, max: bounds on the tokens of a picture under a mass budget
             positions: "original" keeps each token's own position, and "auto" means the same; "compact" closes the gaps
             seed: of the method "random"
    Returns: a handle whose `trace` describes the last call that carried pictures
    Raises:  ValueError when an argument is out of range, the model is of no known family or already being pruned, or
             the method has no scorer for it, or one that was trained on another vision tower
    """
    budget = Budget(keep=keep, tokens=tokens, mass=mass, min=min, max=max)
    if positions not in ("auto", "original", "compact"):
        raise ValueError(f"positions must be 'auto', 'original' or 'compact', not {positions!r}.")
    adapter = adapter_for(model)
    refuse_pruned(adapter.model)
    if positions == "compact" and adapter.no_compact:
        raise ValueError(f"positions can't be 'compact' with this model: {adapter.no_compact}; use 'original'.")
    own = model_scorer(adapter) if method in ("saliency", "auto") else FoundScorer()
    chosen = resolve_method(
        method, seed=seed, home=own.folder, not_in=own.not_in, has_attention=adapter.tower_attention is not None
    )
    if method == "auto":
        _log.info("method 'auto' takes %r.", chosen.name)
    chosen.check(d_features=adapter.d_features)
    require_same_tower(chosen, adapter)
    substitute = _substitute(chosen, adapter, budget)
    pruning = Pruning(adapter=adapter, method=chosen, budget=budget, positions=positions, substitute=substitute)
    if adapter.n_tokens is not None and (budget.mass is None or not chosen.scored):
        budget.count(adapter.n_tokens)
    InLLMDropping(pruning)
    OriginalGaps(pruning)
    require_positions(pruning)
    require_equal(pruning)
    pruning = replace(pruning, method=chosen.to(adapter.device))
    with _entering:  # two threads may both have found the model free
        refuse_pruned(adapter.model)
        return Pruned(pruning)


def _substitute(method: Method, adapter: Adapter, budget: Budget) -> str:
    """A clause on what replaces something that the method needs and the model lacks; empty if nothing is lacking.

    Raises:  ValueError when there is no replacement
    """
    if method.in_tower:
        _require_merging(method, adapter, budget)
    if "frame" in method.needs and "video" not in adapter.token_ids:
        raise ValueError(
            f"method {method.name!r} compares the frames of videos, and this model's can't be pruned as such: use a "
            "method for pictures."
        )
    if not method.needs & {"cls_attention", "keys"} or adapter.tower_attention == "cls":
        return ""
    if adapter.tower_attention is None:
        raise ValueError(
            f"method {method.name!r} needs a vision tower whose attention can be read, unlike this model's: use "
            "'uniform', 'random' or a scorer."
        )
    _log.warning("method %r: %s.", method.name, SUBSTITUTE)
    return SUBSTITUTE


def _require_merging(method: Method, adapter: Adapter, budget: Budget) -> None:
    if adapter.no_merging:
        raise ValueError(
            f"method {method.name!r} merges tokens inside the vision tower, and this model's can't be: "
            f"{adapter.no_merging}; use 'visionzip' or another method that works behind it."
        )
    if method.needs & {"cls_attention", "keys"}:
        raise ValueError(
            f"method {method.name!r} needs the attention of a vision tower whose tokens it merges: use a second method "
            "that reads none."
        )
    if adapter.n_tokens is not None:
        method.merges(adapter.n_tokens, adapter.merging_layers, budget)
