"""Published methods against straightforward loops, written from the papers and not from ours."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from salience.core.types import TokenContext, VisualGrid
from salience.ops.farthest_first import farthest_first
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.divprune import DivPrune, unlike
from salience.vlm.methods.prumerge import PruMerge, PruMergePlus
from salience.vlm.methods.visionzip import VisionZip
from salience.vlm.methods.vispruner import VisPruner

METHODS = [DivPrune(), VisPruner(), VisionZip(), PruMerge(), PruMergePlus()]


def picture(n: int = 36, seed: int = 0) -> TokenContext:
    draw = torch.Generator().manual_seed(seed)
    return TokenContext(
        features=torch.randn(n, 8, generator=draw),
        grid=VisualGrid(rows=1, columns=n),
        cls_attention=(2 * torch.randn(n, generator=draw)).softmax(-1),
        keys=torch.randn(n, 2, 4, generator=draw),
        projected=torch.randn(n, 6, generator=draw),
    )


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


class TestDivPrune:
    def test_by_hand(self) -> None:
        """Five directions in a plane, by their angle: neighbours are 10, 10, 30, 30 and 60 degrees away."""
        angles = torch.tensor([0.0, 10.0, 40.0, 100.0, 170.0]).deg2rad()
        tokens = (
            torch.stack([angles.cos(), angles.sin()], dim=1)[None] * torch.tensor([1.0, 9.0, 2.0, 5.0, 3.0])[:, None]
        )
        # 170 stands alone (70 away); farthest from it is 0; then 100 (70 from both sides 40..170: 70), 40, 10
        assert farthest_first(unlike(tokens), 5)[0].tolist() == [4, 0, 3, 2, 1]

    @pytest.mark.parametrize("count", [1, 9, 35])
    def test_greedy_max_min(self, count: int) -> None:
        ctx = picture()
        assert ctx.projected is not None
        x, n = ctx.projected, 36
        far = [[1 - cosine(x[i], x[j]) for j in range(n)] for i in range(n)]
        chosen = [max(range(n), key=lambda i: min(far[i][j] for j in range(n) if j != i))]
        while len(chosen) < count:
            rest = [i for i in range(n) if i not in chosen]
            chosen.append(max(rest, key=lambda i: min(far[i][j] for j in chosen)))
        assert DivPrune().select(ctx, Budget(tokens=count)).kept.tolist() == sorted(chosen)

    def test_duplicates_come_last_and_never_twice(self) -> None:
        tokens = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(1)).repeat(1, 3, 1)  # each three times
        chosen = farthest_first(unlike(tokens.half()), 18)[0]
        assert sorted(chosen.tolist()) == list(range(18))
        assert sorted((chosen[:6] % 6).tolist()) == list(range(6))


@pytest.mark.parametrize(("tokens", "important"), [(10, 0.5), (7, 0.25), (12, 0.0), (30, 1.0), (1, 0.5)])
def test_vispruner(tokens: int, important: float) -> None:
    ctx = picture(40)
    assert ctx.cls_attention is not None
    order = sorted(range(40), key=lambda i: -float(ctx.cls_attention[i]))  # type: ignore[index]
    first = math.floor(important * tokens + 0.5)
    rest = order[first:]
    while first < tokens < first + len(rest):
        even, odd = rest[::2], rest[1::2]
        alike = {i: max(cosine(ctx.features[i], ctx.features[j]) for j in odd) for i in even}
        gone = sorted(even, key=lambda i: -alike[i])[: min(8, len(rest) + first - tokens, len(even))]
        rest = sorted(set(even) - set(gone), key=lambda i: alike[i], reverse=True) + odd
    wanted = order[:first] + (rest if first < tokens else [])
    assert VisPruner(important=important).select(ctx, Budget(tokens=tokens)).kept.tolist() == sorted(wanted)


def merged(ctx: TokenContext, method: Method, tokens: int) -> tuple[list[int], Tensor]:
    selection = method.select(ctx, Budget(tokens=tokens))
    return selection.kept.tolist(), selection.take(ctx.features)


# float32 sums of a few dozen numbers of order one, in another order.
SUMS = 1e-5


def test_visionzip() -> None:
    ctx, k, contextual = picture(), 20, 3  # 20 * 10 / 64 = 3.1
    assert ctx.cls_attention is not None
    assert ctx.keys is not None
    dominant = sorted(range(36), key=lambda i: -float(ctx.cls_attention[i]))[: k - contextual]  # type: ignore[index]
    rest = [i for i in range(36) if i not in dominant]
    targets = rest[:: len(rest) // contextual][:contextual]
    groups = {target: [target] for target in targets}
    for i in rest:
        if i not in targets:
            groups[max(targets, key=lambda t: cosine(ctx.keys[i].mean(0), ctx.keys[t].mean(0)))].append(i)  # type: ignore[index]
    kept, features = merged(ctx, VisionZip(), k)
    assert kept == sorted(dominant + targets)
    for place, token in enumerate(kept):
        wanted = ctx.features[groups.get(token, [token])].mean(0)
        torch.testing.assert_close(features[place], wanted, atol=SUMS, rtol=0)
    assert any(len(group) > 2 for group in groups.values())
    merge = VisionZip().select(ctx, Budget(tokens=k)).merge
    assert merge is not None
    assert {kept[t]: sorted(merge.sources(t).tolist()) for t in set(merge.target.tolist())} == {
        target: sorted(group) for target, group in groups.items()
    }


def test_visionzip_without_contextual_tokens() -> None:
    selection = VisionZip().select(picture(), Budget(tokens=3))
    assert selection.merge is None
    assert selection.kept.tolist() == sorted(picture().cls_attention.topk(3).indices.tolist())  # type: ignore[union-attr]


def quartiles(values: list[float]) -> tuple[float, float]:
    """With linear interpolation, at (n - 1) / 4 and 3 (n - 1) / 4 of the sorted values."""
    ordered, found = sorted(values), []
    for share in (0.25, 0.75):
        at = share * (len(values) - 1)
        low = int(at)
        found.append(ordered[low] + (at - low) * (ordered[min(low + 1, len(values) - 1)] - ordered[low]))
    return found[0], found[1]


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("tokens", [2, 12])
def test_prumerge(plus: bool, tokens: int) -> None:
    ctx = picture()
    assert ctx.cls_attention is not None
    assert ctx.keys is not None
    attention = ctx.cls_attention.tolist()
    low, high = quartiles(attention)
    outliers = [i for i in range(36) if attention[i] > high + 1.5 * (high - low)]
    assert 2 < len(outliers) < 12  # so that both budgets say something
    wanted = sorted(outliers, key=lambda i: -attention[i])[:tokens]
    if plus:
        rest, missing = [i for i in range(36) if i not in wanted], tokens - len(wanted)
        wanted += [rest[int((j + 0.5) * len(rest) / missing)] for j in range(missing)]
    kept, features = merged(ctx, (PruMergePlus if plus else PruMerge)(neighbours=5), tokens)
    assert kept == sorted(wanted)
    for place, token in enumerate(kept):
        others = [i for i in range(36) if i != token]
        near = sorted(others, key=lambda i: -cosine(ctx.keys[i].flatten(), ctx.keys[token].flatten()))[:5]  # type: ignore[index]
        summed = ctx.features[token] + sum(attention[i] * ctx.features[i] for i in near)
        torch.testing.assert_close(features[place], summed, atol=SUMS, rtol=0)


def test_prumerge_without_outliers_keeps_one() -> None:
    ctx = picture()
    flat = TokenContext(features=ctx.features, grid=ctx.grid, cls_attention=torch.full((36,), 1 / 36), keys=ctx.keys)
    assert PruMerge().select(flat, Budget(tokens=9)).kept.tolist() == [0]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 48), data=st.data())
def test_counts_order_and_no_duplicates(n: int, data: Any) -> None:
    k = data.draw(st.integers(1, n))
    contexts = [picture(n, seed) for seed in range(2)]
    for method in METHODS:
        for ctx, got in zip(contexts, method.select_all(contexts, Budget(tokens=k)), strict=True):
            kept = got.kept.tolist()
            assert kept == sorted(set(kept))
            assert set(kept) <= set(range(n))
            assert len(kept) == k or (method.name == "prumerge" and 1 <= len(kept) < k)
            assert got.take(ctx.features).shape == (len(kept), 8)
            assert torch.equal(method.select(ctx, Budget(tokens=k)).kept, got.kept)
            if k == n:
                assert got.merge is None
                assert len(kept) == n


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_mass_is_refused(method: Method) -> None:
    with pytest.raises(ValueError, match=r"mass=0\.5 needs a method with scores"):
        method.select(picture(), Budget(mass=0.5))


@pytest.mark.parametrize(
    "make",
    [lambda: VisPruner(important=1.5), lambda: VisionZip(contextual=-1), lambda: PruMerge(neighbours=0)],
    ids=["important", "contextual", "neighbours"],
)
def test_parameters_out_of_range(make: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
