"""Bipartite soft matching against a loop over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from salience.ops.token_merging import merge_means, soft_match


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def groups_by_a_loop(keys: Tensor, count: int) -> list[list[int]]:
    """What is left of the tokens, each with those that went into it, in order."""
    n = len(keys)
    proposals = []
    for i in range(0, n, 2):
        partner = max(range(1, n, 2), key=lambda j: cosine(keys[i], keys[j]))
        proposals.append((cosine(keys[i], keys[partner]), i, partner))
    proposals.sort(key=lambda p: -p[0])
    groups = {i: [i] for i in range(n)}
    for _, i, partner in proposals[:count]:
        groups[partner] += groups.pop(i)
    return [groups[i] for i in sorted(groups)]


@pytest.mark.parametrize(("tokens", "count"), [(9, 4), (12, 3), (12, 0), (7, 1), (2, 1)])
def test_by_a_loop(tokens: int, count: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    keys, x = torch.randn(2, tokens, 5, generator=draw), torch.randn(2, tokens, 3, generator=draw)
    sizes = torch.randint(1, 5, (2, tokens), generator=draw).float()
    matching = soft_match(keys, count)
    got, totals = merge_means(x, sizes, matching)
    for picture in range(2):
        groups = groups_by_a_loop(keys[picture], count)
        for place, group in enumerate(groups):
            assert matching.place[picture, group].tolist() == [place] * len(group)
            assert int(matching.left[picture, place]) == group[0]
            weight = sizes[picture, group]
            wanted = (weight[:, None] * x[picture, group]).sum(0) / weight.sum()
            assert float(totals[picture, place]) == float(weight.sum())
            # float32 sums of a few numbers of order one, in another order
            torch.testing.assert_close(got[picture, place], wanted, atol=1e-6, rtol=0)


def test_ties_go_to_the_earlier_token() -> None:
    assert soft_match(torch.ones(1, 6, 2), 2).place.tolist() == [[0, 0, 0, 1, 2, 3]]


def test_half_precision_is_compared_in_float32() -> None:
    keys = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(soft_match(keys, 3).place, soft_match(keys.float(), 3).place)
    x, _ = merge_means(keys, torch.ones(1, 8), soft_match(keys, 3))
    assert x.dtype == torch.bfloat16


def test_more_than_half() -> None:
    with pytest.raises(ValueError, match=r"at most 4, half of 9 tokens, not 5\."):
        soft_match(torch.ones(1, 9, 2), 5)
