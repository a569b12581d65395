"""Bipartite soft matching: tokens paired by their keys in one pass, and merged as means weighted by size.

Source: Token Merging (ToMe), arXiv:2210.09461, section 3.1 and appendix D.  Deviation: the remaining tokens stay in
order (there: first those of one half, then those of the other); sums and means are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from salience.core.precision import full_precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """left: (B, m) int64, rising, the remaining tokens   place: (B, t) int64, the place of each token among them."""

    left: Tensor
    place: Tensor


@torch.no_grad()
def soft_match(keys: Tensor, count: int) -> Matching:
    """Match `count` of t tokens to others by their keys (B, t, c).

    Each token at an even place is paired with the token at an odd place whose key has the highest cosine similarity.
    The `count` most similar pairs are merged, at the odd one's place. Ties go to the earlier token.

    Raises:  ValueError when count is not in 0 .. t // 2, or a key is not finite
    """
    batch, tokens, _ = keys.shape
    if not 0 <= count <= tokens // 2:
        raise ValueError(f"count must be at most {tokens // 2}, half of {tokens} tokens, not {count}.")
    if not bool(keys.isfinite().all()):  # torch sorts NaN first, and would merge the first tokens
        raise ValueError("keys must be finite to be matched, and some are NaN or infinite: try float32.")
    unit = normalize(keys.float(), dim=-1)
    with full_precision(keys.device):
        alike, partner = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(2)  # (B, evens), over the odds
    merged = alike.sort(dim=1, descending=True, stable=True).indices[:, :count]  # (B, count), of the evens
    gone = torch.zeros(batch, tokens, dtype=torch.bool, device=keys.device).scatter(1, 2 * merged, True)
    place = (~gone).long().cumsum(1) - 1  # (B, t): of those that are left, their own
    goes = place.gather(1, 2 * partner.gather(1, merged) + 1)
    left = gone.long().sort(dim=1, stable=True).indices[:, : tokens - count]
    return Matching(left=left, place=place.scatter(1, 2 * merged, goes))


def merge_means(x: Tensor, sizes: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """x (B, t, d), sizes (B, t) float32 -> the remaining tokens (B, m, d), means weighted by size, and their sizes."""
    left, place = matching.left.shape[1], matching.place
    totals = sizes.new_zeros(sizes.shape[0], left).scatter_add(1, place, sizes)  # (B, m)
    weighed = x.float() * sizes[..., None]
    sums = weighed.new_zeros(x.shape[0], left, x.shape[2])
    sums = sums.scatter_add(1, place[..., None].expand_as(weighed), weighed)
    return (sums / totals[..., None]).to(x.dtype), totals
