"""Methods inside the language model, each beside a straightforward calculation on fixed tensors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from salience.core.types import TokenContext, VisualGrid
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.compose import then
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.pyramiddrop import PyramidDrop
from salience.vlm.methods.sparsevlm import SparseVLM
from salience.vlm.methods.uniform import Uniform


def context(
    attention: Tensor, *, hidden: Tensor | None = None, entered: Tensor | None = None, text: Tensor | None = None
) -> TokenContext:
    n = attention.shape[1]
    hidden = torch.zeros(n, 4) if hidden is None else hidden
    return TokenContext(
        features=hidden, grid=VisualGrid(rows=1, columns=n), projected=entered, text=text, text_attention=attention
    )


def stay(
    method: Any, ctx: TokenContext, tokens: int, stage: int = 0, stages: int = 1, entered: int | None = None
) -> Any:
    entered = ctx.features.shape[0] if entered is None else entered
    return method.stay(ctx, Budget(tokens=tokens), entered=entered, stage=stage, stages=stages)


class TestFastV:
    ATTENTION = torch.tensor([[0.1, 0.3, 0.05, 0.3, 0.0, 0.2]])

    def test_keeps_what_the_last_token_looks_at(self) -> None:
        assert stay(FastV(), context(self.ATTENTION), 2).kept.tolist() == [1, 3]
        assert stay(FastV(), context(self.ATTENTION), 3).kept.tolist() == [1, 3, 5]

    def test_mass(self) -> None:
        """.3 + .3 of .95 are .63: two tokens reach .6, three are needed for .7."""
        for mass, kept in ((0.6, [1, 3]), (0.7, [1, 3, 5])):
            chosen = FastV().stay(context(self.ATTENTION), Budget(mass=mass), entered=6, stage=0, stages=1)
            assert chosen.kept.tolist() == kept

    def test_where(self) -> None:
        assert FastV().drops(32) == (2,)
        with pytest.raises(ValueError, match="the language model has 2"):
            FastV().drops(2)
        with pytest.raises(ValueError, match="layer must be a whole number of at least 1, not 0"):
            FastV(layer=0)


class TestPyramidDrop:
    def test_the_paper_s_numbers(self) -> None:
        """576 tokens, lambda .5 at layers 8, 16 and 24 of 32: keep .125."""
        assert PyramidDrop().drops(32) == (8, 16, 24)
        last = Budget(keep=0.125).count(576)
        assert [PyramidDrop().count(576, last, stage, 3) for stage in range(3)] == [288, 144, 72]

    def test_stages(self) -> None:
        attention = torch.tensor([[0.3, 0.0, 0.1, 0.2, 0.05, 0.15, 0.12, 0.08]])
        first = stay(PyramidDrop(), context(attention), 2, stage=0, stages=2)
        assert first.kept.tolist() == [0, 3, 5, 6]  # 8 -> 4 -> 2
        second = stay(PyramidDrop(), context(attention[:, [0, 3, 5, 6]].flip(1)), 2, stage=1, stages=2, entered=8)
        assert second.kept.tolist() == [2, 3]

    def test_shallow_models(self) -> None:
        assert PyramidDrop().drops(6) == (2, 3, 5)
        assert PyramidDrop().drops(2) == (1,)
        with pytest.raises(ValueError, match="of 1 layer has no place"):
            PyramidDrop().drops(1)
        with pytest.raises(ValueError, match="depths must be fractions"):
            PyramidDrop(depths=(0.5, 1.0))


class TestSparseVLM:
    def made_up(self, n: int = 40, t: int = 6) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        return {
            "attention": draw(t, n).softmax(-1), "hidden": draw(n, 8), "entered": draw(n, 8), "text": draw(t, 8),
        }  # fmt: skip

    def raters(self, entered: Tensor, text: Tensor) -> list[int]:
        """Equation by equation, a number at a time."""
        relevance = [0.0] * len(text)
        for token in entered.tolist():
            weights = [math.exp(sum(a * b for a, b in zip(token, word, strict=True))) for word in text.tolist()]
            for i, weight in enumerate(weights):
                relevance[i] += weight / sum(weights) / len(entered)
        mean = sum(relevance) / len(relevance)
        return [i for i, value in enumerate(relevance) if value >= mean]

    def test_raters(self) -> None:
        given = self.made_up()
        wanted = self.raters(given["entered"], given["text"])
        found = SparseVLM().raters(context(**given))
        assert torch.nonzero(found)[:, 0].tolist() == wanted
        assert 0 < len(wanted) < 6

    def test_last_stage(self) -> None:
        """40 tokens to 11: 9 of the best, and of the 31 others the best 15 (half) as 2 clusters (an eighth)."""
        given, n, count = self.made_up(), 40, 11
        method = SparseVLM(recycled=0.5, merged=0.14)
        chosen = stay(method, context(**given), count, stage=1, stages=2)
        raters = self.raters(given["entered"], given["text"])
        score = [sum(float(given["attention"][i, j]) for i in raters) for j in range(n)]
        order = sorted(range(n), key=lambda j: -score[j])
        clusters = round(0.14 * int(0.5 * (n - count)))
        best, again = order[: count - clusters], sorted(order[count - clusters :][: int(0.5 * (n - count + clusters))])
        goes = self.clustered(given["hidden"], again, clusters)
        assert clusters == 2
        assert chosen.kept.tolist() == sorted({*best, *goes.values()})
        took_in: dict[int, set[int]] = {}
        for token, centre in goes.items():
            took_in.setdefault(centre, set()).add(token)
        new = chosen.take(given["hidden"])
        for place, token in enumerate(chosen.kept.tolist()):
            members = sorted(took_in.get(token, {token}))
            # the same few float32 numbers, added in another order
            torch.testing.assert_close(new[place], given["hidden"][members].mean(0), atol=1e-6, rtol=1e-5)

    def clustered(self, hidden: Tensor, members: list[int], clusters: int) -> dict[int, int]:
        """Density peaks, one pair after the other: each member's centre."""
        apart = lambda i, j: float((hidden[i] - hidden[j]).square().sum()) ** 0.5 / 8**0.5  # noqa: E731
        density = {}
        for i in members:
            near = sorted(apart(i, j) for j in members)[:5]
            density[i] = math.exp(-sum(d * d for d in near) / 5)
        peak = {}
        for i in members:
            denser = [apart(i, j) for j in members if density[j] > density[i]]
            peak[i] = density[i] * (min(denser) if denser else max(apart(a, b) for a in members for b in members))
        centres = sorted(members, key=lambda i: -peak[i])[:clusters]
        return {i: i if i in centres else min(centres, key=lambda c: apart(i, c)) for i in members}

    def test_rank_decides_how_fast(self) -> None:
        """(1 - share) (n - rank) go: of 40 tokens to 10 in two stages half of what is beyond the rank."""
        given, method = self.made_up(), SparseVLM(recycled=0)
        rank = len(self.raters(given["entered"], given["text"]))  # random rows are independent
        assert len(stay(method, context(**given), 10, stage=0, stages=2).kept) == round(40 - 0.5 * (40 - rank))
        given["attention"] = given["attention"][:1].expand(6, -1)  # all rate alike: rank 1
        assert len(stay(method, context(**given), 10, stage=0, stages=2).kept) == 21  # 20.5
        given["attention"] = torch.eye(6)
        full = {**given, "hidden": torch.zeros(6, 8), "text": torch.zeros(6, 8)}  # all rate, and rank 6 of 6
        assert len(stay(method, context(**full), 2, stage=0, stages=2).kept) == 6

    def test_the_same_token_many_times(self) -> None:
        """Duplicates are at no distance: counts still hold."""
        given = self.made_up()
        given["hidden"] = torch.ones(40, 8)
        chosen = stay(SparseVLM(recycled=0.5, merged=0.5), context(**given), 12)
        assert len(chosen.kept) == 12
        assert chosen.kept.unique().numel() == 12
        torch.testing.assert_close(chosen.take(given["hidden"]), torch.ones(12, 8), atol=1e-6, rtol=0)  # sums of 1 / m

    def test_where(self) -> None:
        assert SparseVLM().drops(32) == (2, 6, 15)
        with pytest.raises(ValueError, match="recycled must be a share"):
            SparseVLM(recycled=1.5)


def test_then_of_three() -> None:
    """Methods before the language model become one, in any order of composition."""
    inner = then(Uniform(), FastV(), keep=0.5)
    method = then(Uniform(), inner, keep=0.75)
    (left,) = method.before([context(torch.zeros(1, 16))], Budget(tokens=2))  # type: ignore[attr-defined]
    assert method.name == "uniform then uniform then fastv"
    assert len(left.kept) == 8
