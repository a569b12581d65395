"""The choice of a call's visual tokens: the method's input and its selection."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from salience.core.precision import full_precision, under_autocast
from salience.core.types import Selection, TokenContext
from salience.vlm.families import EncodedViews
from salience.vlm.last_token import ending_views, with_last
from salience.vlm.methods.budget import Budget
from salience.vlm.pruning import Pruning
from salience.vlm.tower.tower_merging import Schedule


def merging_schedule(pruning: Pruning) -> Schedule | None:
    """Tokens merged in each layer of the vision tower; None where none are, so that the tower runs as it is."""
    method, adapter = pruning.method, pruning.adapter
    n, layers = adapter.n_tokens, adapter.merging_layers
    if not method.in_tower or n is None or not any(method.merges(n, layers, pruning.budget)):
        return None
    return lambda n, layers: method.merges(n, layers, pruning.budget)


def token_contexts(pruning: Pruning, encoded: EncodedViews) -> list[TokenContext]:
    """The method's context for each view, in the model's dtype; methods choose with autocast off."""
    found = [encoded.context(view, pruning.method.needs) for view in range(len(encoded))]
    if not under_autocast(pruning.adapter.device):
        return found
    dtype = pruning.adapter.model.dtype
    return [
        replace(
            context,
            features=context.features.to(dtype),
            projected=None if context.projected is None else context.projected.to(dtype),
        )
        for context in found
    ]


def select_tokens(
    pruning: Pruning, encoded: EncodedViews, contexts: Sequence[TokenContext], ids: Tensor, mask: Tensor
) -> list[Selection]:
    """The tokens of each view that enter the language model.

    The last token of a prompt (B, T) that ends in a picture stays, whatever the method says.
    """
    with full_precision(pruning.adapter.device):
        found = _select(pruning, contexts)
    for view in ending_views(pruning.adapter, encoded, ids, mask):
        found[view] = with_last(found[view], encoded.views[view].shape[0], pruning.method.name)
    return found


def _select(pruning: Pruning, contexts: Sequence[TokenContext]) -> list[Selection]:
    """A view that is smaller than `tokens` stays whole, in models that take pictures of any size."""
    method, budget = pruning.method, pruning.budget
    if pruning.in_llm is not None:
        return pruning.in_llm.before(contexts, budget)
    sizes = [context.features.shape[0] for context in contexts]
    if budget.tokens is None or pruning.adapter.n_tokens is not None or min(sizes) >= budget.tokens:
        return method.select_all(contexts, budget)
    found: list[Selection] = []
    for n, group in itertools.groupby(contexts, key=lambda context: context.features.shape[0]):  # a video's frames
        found += method.select_all(list(group), Budget(tokens=min(budget.tokens, n)))
    return found


def kept_whole(pruning: Pruning, contexts: Sequence[TokenContext]) -> str:
    """A sentence on views that are smaller than the number of tokens asked for; empty if there are none."""
    tokens = pruning.budget.tokens or 0
    short = sum(context.features.shape[0] < tokens for context in contexts)
    return f"{short} of {len(contexts)} views have fewer than tokens={tokens} and stay whole." if short else ""
