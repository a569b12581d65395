"""The choice of a call's visual tokens: the method's input and its selection."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from salience.core.precision import full_precision, under_autocast
from salience.core.types import Merge, Selection, TokenContext
from salience.vlm.families import Adapter, EncodedViews
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
    for view in _ending_views(pruning.adapter, encoded, ids, mask):
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


def _ending_views(adapter: Adapter, encoded: EncodedViews, input_ids: Tensor, mask: Tensor) -> frozenset[int]:
    """The views whose last token ends a row of the prompt (B, T), apart from padding."""
    found = set()
    last = last_columns(mask).tolist()
    for kind, token in adapter.token_ids.items():
        slot = (input_ids == token).cpu()
        views = [view for view, its in enumerate(encoded.kinds) if its == kind]
        ends = itertools.accumulate(encoded.sizes[view] for view in views)
        view_at = dict(zip(ends, views, strict=True))
        places = slot.sum(1).cumsum(0).tolist()
        found |= {view_at[place] for row, place in enumerate(places) if slot[row, last[row]] and place in view_at}
    return frozenset(found)


def last_columns(mask: Tensor) -> Tensor:
    """(B, L) -> (B,): each row's last column that is no padding."""
    return mask.shape[1] - 1 - (mask != 0).flip(1).long().argmax(1)


def with_last(found: Selection, n: int, method: str) -> Selection:
    """A selection of n tokens that keeps the last one, in place of the kept token with the lowest score.

    Without scores the last kept token leaves. If the method merges, one that took no others in leaves, if there is one.

    Raises:  ValueError when the last token was merged into another inside the vision tower
    """
    if int(found.kept[-1]) == n - 1:
        return found
    if found.merge is not None and found.merge.inside:
        raise ValueError(
            f"the prompt ends in a picture whose last token method {method!r} merged into another, and the text would "
            "continue from there: put text behind the picture, or use a method that works behind the vision tower."
        )
    merge, free = found.merge, torch.ones(len(found.kept), dtype=torch.bool)
    if merge is not None:
        free[merge.target] = False
    places = torch.nonzero(free if bool(free.any()) else ~free)[:, 0]
    out = int(places[-1] if found.scores is None else places[found.scores[found.kept[places]].argmin()])
    kept = torch.cat([found.kept[:out], found.kept[out + 1 :], torch.tensor([n - 1])])
    if merge is not None:
        stays = merge.target != out
        target = merge.target[stays] - (merge.target[stays] > out).long()
        merge = Merge(target=target, source=merge.source[stays], weight=merge.weight[stays]) if len(target) else None
    return replace(found, kept=kept, merge=merge)
