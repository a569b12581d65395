"""Numbers that cannot be ranked are an error: torch sorts NaN first, and the first tokens would stay, unnoticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext, VisualGrid
from salience.lab.fit.attention_source import AttentionSource, join_questions
from salience.ops.token_merging import soft_match
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.compose import then, union
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.pyramiddrop import PyramidDrop
from salience.vlm.methods.registry import METHODS, method_class
from salience.vlm.methods.saliency import Saliency
from salience.vlm.methods.sparsevlm import SparseVLM
from salience.vlm.methods.uniform import Uniform
from salience.vlm.scorers.scorer import Scorer

N, D = 16, 8
BUDGET = Budget(tokens=4)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))


def context(**options: Any) -> TokenContext:
    draw = torch.Generator().manual_seed(0)
    seen = {
        "features": torch.randn(N, D, generator=draw),
        "cls_attention": torch.rand(N, generator=draw),
        "keys": torch.randn(N, 2, 4, generator=draw),
        "projected": torch.randn(N, D, generator=draw),
    }
    return TokenContext(grid=VisualGrid(rows=4, columns=4), **{**seen, **options})


def poisoned(field: str, value: float) -> TokenContext:
    ctx = context()
    wrong = getattr(ctx, field).clone()
    wrong[5] = value
    return replace(ctx, **{field: wrong})


@dataclass(frozen=True, kw_only=True, eq=False)
class Given(Method):
    """Somebody's own method, by scores."""

    name = "given"
    values: Tensor

    def score(self, ctx: TokenContext) -> Tensor:
        return self.values


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen(Method):
    """Somebody's own method, by what is kept."""

    name = "chosen"
    kept: Tensor
    values: Tensor | None = None

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        return [Selection(kept=self.kept, scores=self.values) for _ in contexts]


def wrong_scores(value: float = float("nan")) -> Tensor:
    return torch.arange(N).float().index_fill(0, torch.tensor([3]), value)


class TestWhatAMethodReads:
    READS: ClassVar[dict[str, tuple[str, ...]]] = {
        "cls-attention": ("cls_attention",), "divprune": ("projected",), "prumerge": ("cls_attention", "keys"),
        "prumerge+": ("cls_attention", "keys"), "visionzip": ("cls_attention", "keys"),
        "vispruner": ("cls_attention", "features"),
    }  # fmt: skip

    @pytest.mark.parametrize("value", NOT_FINITE)
    @pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in READS.items() for field in fields])
    def test_is_finite(self, name: str, field: str, value: float) -> None:
        method = method_class(name)()
        with pytest.raises(ValueError, match=f"'{name.replace('+', '.')}' ranks tokens by .* must be finite"):
            method.select(poisoned(field, value), BUDGET)
        assert len(method.select(context(), BUDGET).kept) <= 4

    def test_every_method_of_the_table_is_tried_somewhere_here(self) -> None:
        others = {"fastv", "pyramiddrop", "sparsevlm", "saliency", "temporal", "tome", "fastervlm"}
        look_at_nothing = {"oracle", "random", "uniform"}
        assert {*self.READS, *others, *look_at_nothing} == set(METHODS)

    def test_frames_of_a_video(self) -> None:
        frames = [replace(context(), frame=0), replace(poisoned("features", float("nan")), frame=1)]
        with pytest.raises(ValueError, match="'temporal' ranks tokens by differences between frames"):
            method_class("temporal")().select_all(frames, BUDGET)

    def test_keys_of_a_tower_that_merges(self) -> None:
        keys = torch.randn(1, N, D).index_fill(1, torch.tensor([2]), float("nan"))
        with pytest.raises(ValueError, match="keys must be finite"):
            soft_match(keys, 4)

    def test_attention_that_a_scorer_learns_from(self) -> None:
        with pytest.raises(ValueError, match="attention values to learn from"):
            join_questions(torch.full((1, 2, N), float("nan")), [(0, 1)], AttentionSource())


class TestScores:
    @pytest.mark.parametrize("value", NOT_FINITE)
    @pytest.mark.parametrize("budget", [BUDGET, Budget(mass=0.5), Budget(keep=1.0)])
    def test_of_somebody_s_method(self, value: float, budget: Budget) -> None:
        with pytest.raises(ValueError, match="'given' ranks tokens by scores that must be finite, and 1 of 16 are NaN"):
            Given(values=wrong_scores(value)).select(context(), budget)

    @pytest.mark.parametrize(
        "method",
        [
            then(Uniform(), Given(values=wrong_scores()), keep=0.5),
            then(Given(values=wrong_scores()), ClsAttention(), keep=0.5),
            union(Uniform(), Given(values=wrong_scores())),
            union(Given(values=wrong_scores()), Uniform()),
            then(union(Uniform(), Given(values=wrong_scores())), ClsAttention(), keep=0.75),
        ],
        ids=lambda method: str(method.name),
    )
    def test_of_one_of_several_methods(self, method: Method) -> None:
        with pytest.raises(ValueError, match="'given' ranks tokens by scores that must be finite"):
            method.select(context(), BUDGET)

    def test_that_a_choice_reports(self) -> None:
        with pytest.raises(ValueError, match="'chosen' ranks tokens by scores"):
            Chosen(kept=torch.arange(4), values=wrong_scores()).select(context(), BUDGET)

    def test_that_leave_nothing_to_share(self) -> None:
        with pytest.raises(ValueError, match="shares of the mass that must be finite"):
            ClsAttention().select(context(cls_attention=torch.zeros(N)), Budget(mass=0.5))

    @pytest.mark.parametrize("kept", [[], [0, 0], [3, 1], [-1, 2], [2, N]])
    def test_tokens_that_are_not_there(self, kept: list[int]) -> None:
        with pytest.raises(ValueError, match="'chosen' must keep at least one of 16 tokens, each once"):
            Chosen(kept=torch.tensor(kept, dtype=torch.int64)).select(context(), BUDGET)


class TestScorer:
    def test_in_half_precision_that_overflows(self) -> None:
        scorer = Scorer(D)
        with torch.no_grad():
            scorer.network.fc1.weight.mul_(3e4)
            scorer.network.fc2.weight.mul_(3e4)
        with pytest.raises(ValueError, match=r"'saliency' ranks tokens by scores .* or float16 too narrow"):
            Saliency(scorer=scorer.half()).select(context(), BUDGET)
        assert len(Saliency(scorer=scorer.float()).select(context(), BUDGET).kept) == 4

    def test_with_weights_that_are_not_finite(self, tmp_path: Any) -> None:
        scorer = Scorer(D)
        with torch.no_grad():
            scorer.network.fc1.weight[0, 0] = float("nan")
        with pytest.raises(ValueError, match=r"weights must be finite, and fc1\.weight holds NaN or infinity"):
            Saliency(scorer=scorer).check(d_features=D)
        folder = scorer.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="holds weights that are NaN or infinite"):
            Scorer.from_pretrained(folder)


class TestInsideTheLanguageModel:
    @pytest.mark.parametrize("method", [FastV(), PyramidDrop(), SparseVLM()], ids=lambda method: str(method.name))
    @pytest.mark.parametrize("value", NOT_FINITE[:2])
    def test_attention(self, method: Any, value: float) -> None:
        attention = torch.rand(2, N)
        attention[:, 3] = value
        ctx = context(text=torch.randn(2, D), text_attention=attention)
        with pytest.raises(ValueError, match="must be finite"):
            method.stay(ctx, BUDGET, entered=N, stage=0, stages=1)

    @pytest.mark.parametrize("field", ["features", "projected", "text"])
    def test_what_sparsevlm_clusters_and_rates_by(self, field: str) -> None:
        ctx = context(text=torch.randn(N, D), text_attention=torch.rand(N, N))
        wrong = getattr(ctx, field).clone()
        wrong[1] = float("nan")
        with pytest.raises(ValueError, match=f"'sparsevlm' ranks tokens by {field} values"):
            SparseVLM().stay(replace(ctx, **{field: wrong}), BUDGET, entered=N, stage=0, stages=1)
