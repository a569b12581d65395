"""`then` and `union`: who chooses what, and what merging twice means."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from salience.core.types import Merge, Selection, TokenContext, VisualGrid
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.compose import then, union
from salience.vlm.methods.divprune import DivPrune
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.prumerge import PruMerge, PruMergePlus
from salience.vlm.methods.saliency import Saliency
from salience.vlm.methods.temporal import Temporal
from salience.vlm.methods.tome import ToMe
from salience.vlm.methods.uniform import Uniform
from salience.vlm.methods.visionzip import VisionZip
from salience.vlm.scorers.scorer import Scorer


def picture(n: int = 36) -> TokenContext:
    draw = torch.Generator().manual_seed(0)
    return TokenContext(
        features=torch.randn(n, 8, generator=draw),
        grid=VisualGrid(rows=1, columns=n),
        cls_attention=(2 * torch.randn(n, generator=draw)).softmax(-1),
        keys=torch.randn(n, 2, 4, generator=draw),
        projected=torch.randn(n, 6, generator=draw),
    )


def kept(method: Method, tokens: int) -> list[int]:
    found = method.select(picture(), Budget(tokens=tokens)).kept.tolist()
    assert found == sorted(set(found))
    return [int(i) for i in found]


def test_then_is_the_second_among_what_the_first_left() -> None:
    coarse = kept(ClsAttention(), 18)
    order = sorted(range(36), key=lambda i: (-Uniform().score(picture()).neg()[i], i))[::-1]
    fine = kept(then(ClsAttention(), Uniform(), keep=0.5), 6)
    assert set(fine) < set(coarse)
    assert fine == sorted([i for i in order if i in coarse][:6])
    assert set(kept(then(ClsAttention(), DivPrune(), keep=0.5), 6)) < set(coarse)


def test_then_never_leaves_less_than_the_budget() -> None:
    assert len(kept(then(ClsAttention(), DivPrune(), keep=0.1), 20)) == 20
    assert kept(then(ClsAttention(), DivPrune(), keep=0.1), 36) == list(range(36))


def test_union_shares_the_budget_without_duplicates() -> None:
    both = kept(union(ClsAttention(), DivPrune(), share=0.25), 12)
    assert len(both) == 12
    assert set(kept(ClsAttention(), 3)) <= set(both)
    ranked = picture().cls_attention.argsort(descending=True).tolist()  # type: ignore[union-attr]
    assert kept(union(ClsAttention(), ClsAttention()), 8) == sorted(ranked[:8])


@pytest.mark.parametrize(("share", "alone"), [(0, DivPrune()), (1, ClsAttention())])
def test_union_of_all_or_nothing_is_one_of_them(share: float, alone: Method) -> None:
    assert kept(union(ClsAttention(), DivPrune(), share=share), 7) == kept(alone, 7)


def test_union_fills_up_what_the_first_does_not_find() -> None:
    alone = kept(PruMerge(), 16)
    both = kept(union(PruMerge(), DivPrune(), share=0.9), 18)
    assert len(alone) < 16
    assert set(alone) < set(both)
    assert len(both) == 18


def test_merging_twice_is_both_sums_after_each_other() -> None:
    ctx, pair = picture(), then(VisionZip(contextual=0.5), PruMergePlus(neighbours=3), keep=0.5)
    got = pair.select(ctx, Budget(tokens=9))
    first = VisionZip(contextual=0.5).select(ctx, Budget(tokens=18))
    assert set(got.kept.tolist()) < set(first.kept.tolist())
    assert got.merge is not None
    halfway, attention, keys = first.take(ctx.features), ctx.cls_attention, ctx.keys
    assert attention is not None
    assert keys is not None
    unit = torch.nn.functional.normalize(keys.flatten(1)[first.kept], dim=-1)
    for place, token in enumerate(got.kept.tolist()):
        at = first.kept.tolist().index(token)
        alike = (unit @ unit[at]).index_fill(0, torch.tensor(at), -2)
        near = alike.topk(3).indices
        wanted = halfway[at] + (attention[first.kept][near, None] * halfway[near]).sum(0)
        # float32 sums of a few dozen numbers of order one, in another order
        torch.testing.assert_close(got.take(ctx.features)[place], wanted, atol=1e-5, rtol=0)


def test_a_union_merges_what_its_first_merges() -> None:
    ctx = picture()
    got, alone = union(PruMerge(), Uniform()).select(ctx, Budget(tokens=16)), PruMerge().select(ctx, Budget(tokens=8))
    rows = torch.isin(got.kept, alone.kept)
    assert torch.equal(got.take(ctx.features)[rows], alone.take(ctx.features))
    assert torch.equal(got.take(ctx.features)[~rows], ctx.features[got.kept[~rows]])


def test_names_needs_and_checks_are_those_of_both() -> None:
    pair = then(VisionZip(), union(Saliency(scorer=Scorer(8)), DivPrune()), keep=0.5)
    assert pair.name == "visionzip then saliency union divprune"
    assert pair.needs == {"cls_attention", "keys", "projected"}
    with pytest.raises(ValueError, match="9 wide"):
        pair.check(d_features=9)
    assert pair.to(torch.device("cpu")).name == pair.name


def test_bad_shares() -> None:
    with pytest.raises(ValueError, match=r"share must be a number from 0 to 1, not 1\.5"):
        union(Uniform(), DivPrune(), share=1.5)
    with pytest.raises(ValueError, match="keep must be"):
        then(Uniform(), DivPrune(), keep=0)


class TestMergedInTheTower:
    """Of 6 tokens the tower has left 4: 1 took in 0, 5 took in 2."""

    def context(self) -> TokenContext:
        target, source = torch.tensor([0, 0, 3, 3]), torch.tensor([0, 1, 2, 5])
        merge = Merge(target=target, source=source, weight=torch.full((4,), 0.5), inside=True)
        left = Selection(kept=torch.tensor([1, 3, 4, 5]), merge=merge)
        features = torch.tensor([[0.0, 0], [1, 0], [0, 0], [0, 1], [2, 2], [3, 0]])  # nothing where nothing is left
        return TokenContext(features=features, grid=VisualGrid(rows=1, columns=6), left=left, projected=features)

    def test_then_tells_what_went_into_those_that_stay(self) -> None:
        found = then(ToMe(), Brightest(), keep=0.6).select(self.context(), Budget(tokens=2))
        assert found.kept.tolist() == [4, 5]
        assert found.merge is not None
        assert found.merge.sources(1).tolist() == [2, 5]
        assert found.merge.sources(0).tolist() == []
        assert torch.equal(found.take(self.context().features), self.context().features[[4, 5]])

    def test_a_second_merge_is_of_merged_tokens(self) -> None:
        found = then(ToMe(), Halves(), keep=0.6).select(self.context(), Budget(tokens=1))
        assert found.kept.tolist() == [1]
        assert torch.equal(found.take(self.context().features), torch.tensor([[2.0, 0.0]]))  # the mean of 1 and 5

    def test_the_tower_leaves_the_coarse_budget(self) -> None:
        both = then(ToMe(), Brightest(), keep=0.5)
        assert both.in_tower
        assert sum(both.merges(16, 4, Budget(keep=0.25))) == 8
        assert sum(both.merges(16, 4, Budget(keep=0.75))) == 4
        assert sum(both.merges(16, 4, Budget(keep=1))) == 0

    @pytest.mark.parametrize("second", [ToMe(), Temporal(), then(ToMe(), FastV(), keep=0.5)])
    def test_what_needs_all_tokens_comes_first(self, second: Method) -> None:
        with pytest.raises(ValueError, match="can only come first"):
            then(ClsAttention(), second, keep=0.5)

    def test_union(self) -> None:
        with pytest.raises(ValueError, match="only be the first of `then`"):
            union(ToMe(), ClsAttention())
        with pytest.raises(ValueError, match="can only come first"):
            union(ClsAttention(), Temporal())


class Brightest(Method):
    """By length."""

    def score(self, ctx: TokenContext) -> torch.Tensor:
        return ctx.features.norm(dim=-1)


class Halves(Method):
    """The first token and the last become their mean."""

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        merge = Merge(target=torch.tensor([0, 0]), source=torch.tensor([0, 3]), weight=torch.tensor([0.5, 0.5]))
        return [Selection(kept=torch.tensor([0]), merge=merge) for _ in contexts]
