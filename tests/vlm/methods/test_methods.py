"""The methods: what each keeps, and what the base does for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from salience.core.types import TokenContext, VisualGrid
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.oracle import Oracle
from salience.vlm.methods.random import Random
from salience.vlm.methods.registry import METHODS, method_class
from salience.vlm.methods.resolve import resolve_method
from salience.vlm.methods.saliency import Saliency
from salience.vlm.methods.uniform import Uniform, bayer_rank
from salience.vlm.scorers.scorer import Scorer, untrained_scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class Given(Method):
    """Scores given from outside."""

    name = "given"
    values: Tensor

    def score(self, ctx: TokenContext) -> Tensor:
        return self.values


def context(n: int = 16, *, image_index: int = 0, **options: Any) -> TokenContext:
    side = int(n**0.5)
    return TokenContext(
        features=torch.randn(n, 8, generator=torch.Generator().manual_seed(image_index)),
        grid=VisualGrid(rows=side, columns=n // side), image_index=image_index, **options,
    )  # fmt: skip


@given(scores=st.lists(st.integers(0, 3), min_size=1, max_size=40), data=st.data())
def test_top_k_in_raster_order_with_ties_to_the_earlier(scores: list[int], data: Any) -> None:
    k = data.draw(st.integers(1, len(scores)))
    ctx = TokenContext(features=torch.zeros(len(scores), 1), grid=VisualGrid(rows=1, columns=len(scores)))
    selection = Given(values=torch.tensor(scores)).select(ctx, Budget(tokens=k))
    best = sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:k])  # Python's sort is stable as well
    assert selection.kept.tolist() == best
    assert selection.kept.dtype == torch.int64
    assert selection.scores is not None
    assert selection.scores.dtype == torch.float32


def test_many_pictures_at_once_as_one_by_one() -> None:
    contexts = [context(16, image_index=i, cls_attention=torch.rand(16)) for i in range(4)]
    for budget in (Budget(keep=0.3), Budget(tokens=5), Budget(mass=0.5)):
        together = ClsAttention().select_all(contexts, budget)
        for ctx, got in zip(contexts, together, strict=True):
            assert torch.equal(got.kept, ClsAttention().select(ctx, budget).kept)


def test_pictures_of_different_sizes() -> None:
    contexts = [context(16, cls_attention=torch.rand(16)), context(25, cls_attention=torch.rand(25))]
    assert [s.kept.numel() for s in ClsAttention().select_all(contexts, Budget(keep=0.2))] == [3, 5]


def test_scores_of_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"'given' must give 16 scores, not a tensor of shape \(4, 4\)"):
        Given(values=torch.zeros(4, 4)).select(context(), Budget(keep=0.5))


@pytest.mark.parametrize(
    ("values", "said"),
    [([0.0] * 16, "not a list"), (None, "not a NoneType"), (torch.zeros(16).numpy(), "not a ndarray"),
     (torch.zeros(16, dtype=torch.complex64), "not complex ones")],
)  # fmt: skip
def test_scores_that_are_no_tensor_of_real_numbers(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"'given' must give a tensor of 16 real scores, {said}"):
        Given(values=values).select(context(), Budget(keep=0.5))


@pytest.mark.parametrize("method", [ClsAttention(), Random()])
def test_a_context_without_what_the_method_needs(method: Method) -> None:
    with pytest.raises(ValueError, match=f"{method.name!r} needs {next(iter(method.needs))}"):
        method.select(context(), Budget(keep=0.5))


class TestRandom:
    def kept(self, digest: int, *, seed: int = 0, tokens: int = 6) -> list[int]:
        kept = Random(seed=seed).select(context(digest=digest), Budget(tokens=tokens)).kept
        return [int(i) for i in kept]

    def test_same_seed_and_picture_same_tokens(self) -> None:
        assert self.kept(7) == self.kept(7)
        assert self.kept(7) != self.kept(8)
        assert self.kept(7) != self.kept(7, seed=1)

    def test_a_larger_budget_contains_a_smaller_one(self) -> None:
        assert set(self.kept(7, tokens=3)) < set(self.kept(7, tokens=9))

    def test_the_global_generator_is_left_alone(self) -> None:
        before = torch.random.get_rng_state()
        self.kept(7)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_every_token_has_its_chance(self) -> None:
        counts = torch.zeros(16)
        for digest in range(2000):
            counts[self.kept(digest, tokens=4)] += 1
        # 500 expected of 2000 draws with p = 1/4: a standard deviation of 19, so 100 is five of them
        assert (counts - 500).abs().max() < 100

    @pytest.mark.parametrize("seed", [-1, 1.5, 2**31, True])
    def test_seeds(self, seed: Any) -> None:
        with pytest.raises(ValueError, match="seed must be a whole number"):
            Random(seed=seed)

    def test_has_no_scores(self) -> None:
        assert Random().select(context(digest=1), Budget(tokens=2)).scores is None


class TestUniform:
    def test_is_the_bayer_matrix(self) -> None:
        assert bayer_rank(2, 2).tolist() == [0, 2, 3, 1]
        assert bayer_rank(4, 4).tolist() == [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5]

    @pytest.mark.parametrize("block", [8, 4, 2])
    def test_covers_the_grid_evenly(self, block: int) -> None:
        side = 24 // block
        kept = Uniform().select(context(576), Budget(tokens=side * side)).kept
        cells = (kept // 24 // block) * side + kept % 24 // block
        assert sorted(cells.tolist()) == list(range(side * side))  # one in every block

    def test_any_rectangle(self) -> None:
        ctx = TokenContext(features=torch.zeros(15, 2), grid=VisualGrid(rows=3, columns=5))
        assert Uniform().select(ctx, Budget(tokens=15)).kept.tolist() == list(range(15))


class TestOracle:
    def test_keeps_cells_of_the_boxes_in_turns(self) -> None:
        boxes = [[(0, 0, 28, 28), (28, 28, 56, 56)]]  # the upper left and lower right quarter of 4 x 4 cells
        oracle = Oracle(boxes=boxes, image_size=(56, 56))
        assert oracle.select(context(), Budget(tokens=8)).kept.tolist() == [0, 1, 4, 5, 10, 11, 14, 15]
        two = oracle.select(context(), Budget(tokens=2)).kept
        assert sum(int(i) in (0, 1, 4, 5) for i in two) == 1

    def test_takes_the_lists_in_batch_order(self) -> None:
        oracle = Oracle(boxes=[[(0, 0, 14, 14)], [(42, 42, 56, 56)]], image_size=(56, 56))
        kept = [oracle.select(context(image_index=i), Budget(tokens=1)).kept.item() for i in range(2)]
        assert kept == [0, 15]
        with pytest.raises(ValueError, match="boxes has 2 pictures' lists"):
            oracle.select(context(image_index=2), Budget(tokens=1))

    def test_a_picture_with_nothing_in_it(self) -> None:
        assert Oracle(boxes=[[]], image_size=(56, 56)).select(context(), Budget(tokens=2)).kept.tolist() == [0, 1]

    @pytest.mark.parametrize("box", [(0, 0, 1), (5, 0, 5, 9), (0, 9, 5, 3)])
    def test_boxes(self, box: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"a box must be \(x0, y0, x1, y1\)"):
            Oracle(boxes=[[box]], image_size=(56, 56))


class TestSaliency:
    def test_keeps_what_the_scorer_rates_highest(self) -> None:
        scorer, ctx = Scorer(8), context()
        selection = Saliency(scorer=scorer).select(ctx, Budget(tokens=4))
        assert selection.kept.tolist() == sorted(scorer(ctx.features).topk(4).indices.tolist())

    def test_untrained_works_and_is_repeatable(self) -> None:
        kept = [
            Saliency(scorer=untrained_scorer(8, seed=seed)).select(context(), Budget(tokens=4)).kept.tolist()
            for seed in (0, 0, 1)
        ]
        assert kept[0] == kept[1] != kept[2]

    def test_width(self) -> None:
        with pytest.raises(ValueError, match="reads features 8 wide, but this model's are 9 wide"):
            Saliency(scorer=Scorer(8)).check(d_features=9)


class TestResolve:
    def resolve(self, method: object, **options: Any) -> Method:
        return resolve_method(method, **{"seed": 3, "home": None, "has_attention": True, **options})

    def test_every_name_of_the_table(self) -> None:
        for name in METHODS:
            assert method_class(name).name == {"fastervlm": "cls-attention"}.get(name, name)  # an alias

    def test_the_nearest_name_is_offered(self) -> None:
        with pytest.raises(ValueError, match=r"not 'divprun' \(did you mean 'divprune'\?\)\.$"):
            self.resolve("divprun")

    def test_names_and_objects(self) -> None:
        scorer, method = Scorer(8), Uniform()
        assert isinstance(self.resolve("uniform"), Uniform)
        assert self.resolve(method) is method
        resolved = self.resolve(scorer)
        assert isinstance(resolved, Saliency)
        assert resolved.scorer is scorer
        random = self.resolve("random")
        assert isinstance(random, Random)
        assert random.seed == 3

    def test_auto_takes_the_scorer_then_cls_then_the_grid(self, tmp_path: Any) -> None:
        home = Scorer(8).save_pretrained(tmp_path / "salience")
        assert isinstance(self.resolve("auto", home=home), Saliency)
        assert isinstance(self.resolve("saliency", home=home), Saliency)
        assert isinstance(self.resolve("auto"), ClsAttention)
        assert isinstance(self.resolve("auto", has_attention=False), Uniform)

    def test_a_folder_by_path_or_string(self, tmp_path: Any) -> None:
        folder = Scorer(8).save_pretrained(tmp_path / "scorer")
        assert isinstance(self.resolve(folder), Saliency)
        assert isinstance(self.resolve(str(folder)), Saliency)

    @pytest.mark.parametrize("what", ["nothing", "oracle", 3, Uniform])
    def test_refused(self, what: object) -> None:
        with pytest.raises(ValueError, match=r"^method .*\.$"):
            self.resolve(what)
