"""Two methods as one: `then` chooses coarsely and then finely among the kept tokens; `union` gives each a share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from salience.core.types import Merge, Selection, TokenContext, VisualGrid
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod


def then(first: Method, second: Method, *, keep: float) -> Method:
    """`first` keeps `keep` of the tokens, at least as many as the budget; `second` chooses among those.

    `second` may drop its tokens inside the language model; `first` must not.

    Raises:  ValueError when keep is not in (0, 1], `first` works inside the language model, or `second` needs all
             tokens
    """
    if isinstance(second, ThenInLLM):  # the two methods before the language model become one
        return replace(second, first=then(first, second.first, keep=keep))
    _require_follows(second)
    if isinstance(first, InLLMMethod):
        raise ValueError(f"method {first.name!r} works inside the language model: it can only be the second of `then`.")
    coarse = Budget(keep=keep)
    if isinstance(second, InLLMMethod):
        return ThenInLLM(first=first, second=second, coarse=coarse)
    return Then(first=first, second=second, coarse=coarse)


def union(a: Method, b: Method, *, share: float = 0.5) -> Method:
    """`a` gets `share` of the budget, rounded to a whole number; `b` gets the rest, among the tokens that `a` dropped.

    Raises:  ValueError when share is not in [0, 1], one of them works inside the language model or the vision tower, or
             `b` needs all tokens
    """
    _require_follows(b)
    for method in (a, b):
        if method.in_tower:
            raise ValueError(
                f"method {method.name!r} merges tokens inside the vision tower: it can only be the first of `then`, "
                "not part of a `union`."
            )
        if isinstance(method, InLLMMethod):
            raise ValueError(
                f"method {method.name!r} works inside the language model, which does not see tokens dropped before it: "
                "it can only be the second of `then`, not part of a `union`."
            )
    return Union(first=a, second=b, share=share)


def _require_follows(method: Method) -> None:
    if method.needs_all:
        raise ValueError(f"method {method.name!r} needs all tokens of a picture: it can only come first.")


@dataclass(kw_only=True, eq=False)
class _Pair(Method):
    """Two methods. The second sees the remaining tokens as one row; if it only ranks, it sees the whole picture."""

    scored = False
    first: Method
    second: Method

    def __post_init__(self) -> None:
        self.name = f"{self.first.name} {type(self).__name__.lower()} {self.second.name}"
        self.needs = self.first.needs | self.second.needs
        self.in_tower, self.needs_all = self.first.in_tower, self.first.needs_all

    def check(self, *, d_features: int) -> None:
        self.first.check(d_features=d_features)
        self.second.check(d_features=d_features)

    def _require_finite(self, ctx: TokenContext) -> None:
        """Each of the two checks its own input."""

    def to(self, device: torch.device) -> Method:
        return replace(self, first=self.first.to(device), second=self.second.to(device))

    def remark(self, contexts: Sequence[TokenContext]) -> str:
        return "; ".join(filter(None, (method.remark(contexts) for method in (self.first, self.second))))


@dataclass(kw_only=True, eq=False)
class Then(_Pair):
    """See `then`. The second sees the tokens that the first merged, and may merge them again."""

    coarse: Budget

    def merges(self, n: int, layers: int, budget: Budget) -> Sequence[int]:
        if budget.count(n) == n:
            return [0] * layers
        return self.first.merges(n, layers, self._coarse(n, budget))

    def _coarse(self, n: int, budget: Budget) -> Budget:
        return Budget(tokens=max(budget.count(n), self.coarse.count(n)))

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        n = contexts[0].features.shape[0]
        k = budget.count(n)
        left = self.first.select_all(contexts, self._coarse(n, budget))
        found = _among(self.second, contexts, left, [min(k, len(one.kept)) for one in left])
        return [_composed(a, b, n) for a, b in zip(left, found, strict=True)]


@dataclass(kw_only=True, eq=False)
class ThenInLLM(InLLMMethod):
    """See `then`: `first` before the language model, `second` inside it."""

    first: Method
    second: InLLMMethod
    coarse: Budget

    def __post_init__(self) -> None:
        first, second = self.first, self.second
        self.name = f"{first.name} then {second.name}"
        self.needs, self.in_tower, self.needs_all = first.needs, first.in_tower, first.needs_all
        self.scored, self.looks, self.rows = second.scored, second.looks, second.rows

    def check(self, *, d_features: int) -> None:
        self.first.check(d_features=d_features)

    def to(self, device: torch.device) -> Method:
        return replace(self, first=self.first.to(device))

    def drops(self, depth: int) -> tuple[int, ...]:
        return self.second.drops(depth)

    def before(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        found: list[Selection] = []
        for n, group in itertools.groupby(contexts, key=lambda ctx: ctx.features.shape[0]):
            found += self.first.select_all(list(group), self._coarse(n, budget))
        return found

    def merges(self, n: int, layers: int, budget: Budget) -> Sequence[int]:
        return self.first.merges(n, layers, self._coarse(n, budget))

    def remark(self, contexts: Sequence[TokenContext]) -> str:
        return self.first.remark(contexts)

    def _coarse(self, n: int, budget: Budget) -> Budget:
        last = 1 if budget.mass is not None else min(n, budget.tokens or budget.count(n))
        return Budget(tokens=max(last, self.coarse.count(n)))

    def stay(self, ctx: TokenContext, budget: Budget, *, entered: int, stage: int, stages: int) -> Selection:
        return self.second.stay(ctx, budget, entered=entered, stage=stage, stages=stages)


@dataclass(kw_only=True, eq=False)
class Union(_Pair):
    """See `union`. If the first finds fewer tokens than its share, the second gets more."""

    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be a number from 0 to 1, not {self.share!r}.")

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        n = contexts[0].features.shape[0]
        k = budget.count(n)
        own = min(k, math.floor(self.share * k + 0.5))
        nothing = [Selection(kept=torch.arange(0)) for _ in contexts]
        firsts = self.first.select_all(contexts, Budget(tokens=own)) if own else nothing
        rests = [Selection(kept=_others(one.kept, n)) for one in firsts]
        counts = [k - len(one.kept) for one in firsts]
        if not any(counts):
            return firsts
        seconds = _among(self.second, contexts, rests, counts)
        composed = [_composed(rest, second, n) for rest, second in zip(rests, seconds, strict=True)]
        return [_joined(a, b) for a, b in zip(firsts, composed, strict=True)]


def _among(
    method: Method, contexts: Sequence[TokenContext], left: Sequence[Selection], counts: Sequence[int]
) -> list[Selection]:
    """The tokens that the method keeps of the remaining ones, as indices into those."""
    found = []
    if method.ranks:
        for ctx, one, count in zip(contexts, left, counts, strict=True):
            scores = method.checked_scores(ctx).cpu()[one.kept]
            found.append(Selection(kept=scores.sort(descending=True, stable=True).indices[:count].sort().values))
        return found
    parts = [_part(ctx, one) for ctx, one in zip(contexts, left, strict=True)]
    if len(set(counts)) == 1 and counts[0]:  # all at once
        return method.select_all(parts, Budget(tokens=counts[0]))
    nothing = Selection(kept=torch.arange(0))
    return [
        method.select(part, Budget(tokens=count)) if count else nothing
        for part, count in zip(parts, counts, strict=True)
    ]


def _part(ctx: TokenContext, left: Selection) -> TokenContext:
    """A method's input for the remaining tokens, as one row."""

    def rows(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[left.kept.to(values.device)]

    return replace(
        ctx,
        features=left.take(ctx.features),
        grid=VisualGrid(rows=1, columns=len(left.kept)),
        left=None,
        cls_attention=rows(ctx.cls_attention),
        keys=rows(ctx.keys),
        projected=rows(ctx.projected),
    )


def _others(kept: Tensor, n: int) -> Tensor:
    return torch.ones(n, dtype=torch.bool).index_fill(0, kept, False).nonzero()[:, 0]


def _composed(first: Selection, second: Selection, n: int) -> Selection:
    """`second`, chosen among the tokens that `first` kept, with indices into all n."""
    kept, merge = first.kept[second.kept], None
    if first.merge is not None and first.merge.inside:
        merge = _on_merged(first, second)
    elif first.merge is not None or second.merge is not None:
        both = second.take(torch.eye(len(first.kept))) @ first.take(torch.eye(n))  # (k, n), weights of the sums
        summed = (both != 0).sum(1) > 1
        target, source = (both * summed[:, None]).nonzero(as_tuple=True)
        merge = Merge(target=target, source=source, weight=both[target, source]) if len(target) else None
    return Selection(kept=kept, scores=first.scores, merge=merge)


def _on_merged(first: Selection, second: Selection) -> Merge | None:
    """The second method's merge of tokens merged in the tower, whose patches it does not list, else the tower's."""
    if second.merge is not None:
        return replace(second.merge, source=first.kept[second.merge.source])
    assert first.merge is not None
    place = torch.full((len(first.kept),), -1).scatter(0, second.kept, torch.arange(len(second.kept)))
    target = place[first.merge.target]
    stays = target >= 0
    if not bool(stays.any()):
        return None
    source, weight = first.merge.source[stays], first.merge.weight[stays]
    return replace(first.merge, target=target[stays], source=source, weight=weight)


def _joined(a: Selection, b: Selection) -> Selection:
    """Two disjoint selections as one."""
    kept, order = torch.cat([a.kept, b.kept]).sort()
    place = order.argsort()  # (k,), the new place of each
    merges = [(m, place[start:]) for m, start in ((a.merge, 0), (b.merge, len(a.kept))) if m is not None]
    if not merges:
        return Selection(kept=kept, scores=a.scores)
    merge = Merge(
        target=torch.cat([places[m.target] for m, places in merges]),
        source=torch.cat([m.source for m, _ in merges]),
        weight=torch.cat([m.weight for m, _ in merges]),
    )
    return Selection(kept=kept, scores=a.scores, merge=merge)
