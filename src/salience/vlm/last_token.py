"""Prompts that end in a picture: its last token stays for the text to continue."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from salience.core.types import Merge, Selection
from salience.vlm.families import Adapter, EncodedViews


def ending_views(adapter: Adapter, encoded: EncodedViews, input_ids: Tensor, mask: Tensor) -> frozenset[int]:
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

    If the method merges, the token that leaves is one that took no others in, if there is one.

    Raises:  ValueError when the last token was merged into another inside the vision tower
    """
    if int(found.kept[-1]) == n - 1:
        return found
    if found.merge is not None and found.merge.inside:
        raise ValueError(
            f"the prompt ends in a picture whose last token method {method!r} merged into another, and the text would "
            "continue from there: put text behind the picture, or use a method that works behind the vision tower."
        )
    out, merge = _weakest(found), found.merge
    kept = torch.cat([found.kept[:out], found.kept[out + 1 :], torch.tensor([n - 1])])
    if merge is not None:
        stays = merge.target != out
        target = merge.target[stays]
        target = target - (target > out).long()
        merge = Merge(target=target, source=merge.source[stays], weight=merge.weight[stays]) if len(target) else None
    return replace(found, kept=kept, merge=merge)


def _weakest(found: Selection) -> int:
    """The place, among the kept tokens, of the one that leaves; without scores the last."""
    free = torch.ones(len(found.kept), dtype=torch.bool)
    if found.merge is not None:
        free[found.merge.target] = False
    if not bool(free.any()):
        free[:] = True
    places = torch.nonzero(free)[:, 0]
    if found.scores is None:
        return int(places[-1])
    return int(places[found.scores[found.kept[places]].argmin()])
