"""Base class of pruning methods: a method scores tokens; ranking, budget and raster order are done here.

A method that does more than rank (it chooses tokens one after the other, merges them, or finds their number) overrides
`choose` instead of `score`, and sees all pictures of one size at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.budget import Budget
from salience.vlm.scorers.scorer import Scorer


class Method:
    """A pruning method. A subclass gives `name` and `score`.

    needs: names of the optional fields of `TokenContext` that it reads.
    scored: False where `score` only ranks (a random draw, a fixed order) or `choose` replaces it. A `mass` budget is
    then refused, and selections carry no scores except those that `choose` sets.
    in_tower: it merges tokens inside the vision tower, as `merges` says; `choose` only collects the remaining tokens.
    needs_all: it depends on places or layers, so it can't choose among the tokens that another method kept.
    """

    name: str = "method"
    needs: frozenset[str] = frozenset()
    scored: bool = True
    in_tower: bool = False
    needs_all: bool = False

    def score(self, ctx: TokenContext) -> Tensor:
        """(n,) one number for each token; the highest are kept."""
        raise NotImplementedError

    def shares(self, scores: Tensor) -> Tensor:
        """(..., n) scores -> each token's share of the mass, adding up to 1; the softmax unless overridden."""
        return scores.softmax(-1)

    def towers(self) -> list[Mapping[str, Any]]:
        """Fingerprints of the vision towers that scorers in it were trained on: `prune` refuses any other tower."""
        return [tower for value in vars(self).values() for tower in _towers(value)]

    def check(self, *, d_features: int) -> None:
        """Raise a ValueError if the method cannot work on features `d_features` wide."""

    def merges(self, n: int, layers: int, budget: Budget) -> Sequence[int]:
        """Number of the n tokens that are merged away in each of a vision tower's layers, where `in_tower`."""
        return [0] * layers

    def remark(self, contexts: Sequence[TokenContext]) -> str:
        """Optional note stored on the trace: a clause that names substitutes used for these pictures; usually empty."""
        return ""

    def to(self, device: torch.device) -> Method:
        """The same method with its weights, if it has any, on `device`; never moves the caller's own."""
        return self

    def select(self, ctx: TokenContext, budget: Budget) -> Selection:
        """The kept tokens of one picture, ties going to the earlier token; see `select_all`."""
        return self.select_all([ctx], budget)[0]

    @torch.no_grad()
    def select_all(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        """The kept tokens of each picture; pictures of one size are ranked together, with one copy to the CPU.

        Any method keeps all tokens unchanged where the budget is all tokens.

        Raises:  ValueError when a context lacks what `needs` names, there is not one score for each token, ranked
                 values are not finite, or the budget cannot be met
        """
        if len({ctx.features.shape[0] for ctx in contexts}) > 1:
            groups = itertools.groupby(contexts, key=lambda ctx: ctx.features.shape[0])  # a video's frames are of one
            return [one for _, group in groups for one in self.select_all(list(group), budget)]
        for ctx, field in itertools.product(contexts, sorted(self.needs - {"frame"})):  # None for a picture
            if getattr(ctx, field) is None:
                raise ValueError(f"method {self.name!r} needs {field}, which this model or call does not give.")
        n = contexts[0].features.shape[0]
        if not self.ranks and (budget.mass is None or not self.scored) and budget.count(n) == n:
            return [Selection(kept=torch.arange(n)) for _ in contexts]
        for ctx in contexts:
            self._require_finite(ctx)
        found = self.choose(contexts, budget)
        for one in found:
            self.check_selection(one, n)
        return found

    @property
    def ranks(self) -> bool:
        """Whether the top k of `score` are kept at every budget, so that one scoring serves all budgets."""
        return type(self).choose is Method.choose

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        """The kept tokens of each picture, of pictures of one size and a budget below all tokens: the top k."""
        scores = torch.stack([self.checked_scores(ctx) for ctx in contexts])  # (pictures, n)
        counts = budget.counts(scores, self._finite_shares if self.scored else None)
        ranked = scores.sort(dim=1, descending=True, stable=True).indices.cpu()
        reported: Sequence[Tensor | None] = list(scores.cpu()) if self.scored else [None] * len(contexts)
        return [
            Selection(kept=order[:k].sort().values, scores=row)
            for order, k, row in zip(ranked, counts, reported, strict=True)
        ]

    def _finite_shares(self, scores: Tensor) -> Tensor:
        shares = self.shares(scores)
        require_finite(shares, self.name, "shares of the mass")
        return shares

    def checked_scores(self, ctx: TokenContext) -> Tensor:
        """`score`, (n,) float32.

        Raises:  ValueError when they are not a tensor, one real number a token, or not finite
        """
        given, n = self.score(ctx), ctx.features.shape[0]
        if not isinstance(given, Tensor) or given.is_complex():
            kind = "complex ones" if isinstance(given, Tensor) else f"a {type(given).__name__}"
            raise ValueError(f"method {self.name!r} must give a tensor of {n} real scores, not {kind}.")
        if given.shape != (n,):
            raise ValueError(f"method {self.name!r} must give {n} scores, not a tensor of shape {tuple(given.shape)}.")
        scores = given.float()
        require_finite(scores, self.name, "scores", dtype=given.dtype)
        return scores

    def _require_finite(self, ctx: TokenContext) -> None:
        """Raise a ValueError where values that the method reads are not finite."""
        seen = set(self.needs & {"cls_attention", "keys", "projected"})
        if not self.ranks and not self.in_tower:  # of a method that only ranks, the scores are checked
            seen.add("features")
        for field in sorted(seen):
            require_finite(getattr(ctx, field), self.name, f"{field.replace('_', ' ')} values")

    def check_selection(self, found: Selection, n: int) -> None:
        """Raise a ValueError for tokens that do not exist, and for scores that are not finite."""
        kept = found.kept
        rising = kept.dim() == 1 and kept.numel() > 0 and bool((kept[1:] > kept[:-1]).all())
        if kept.dtype != torch.int64 or not rising or int(kept[0]) < 0 or int(kept[-1]) >= n:
            raise ValueError(
                f"method {self.name!r} must keep at least one of {n} tokens, each once, as rising int64 numbers from 0 "
                f"to {n - 1}, not {kept!r:.200}."
            )
        if found.scores is not None:
            require_finite(found.scores, self.name, "scores")


def _towers(value: object) -> Iterator[Mapping[str, Any]]:
    """Towers that the scorers in a method's field were trained on: a scorer, a method, or several of them."""
    if isinstance(value, Method):
        yield from value.towers()
    elif isinstance(value, Scorer) and value.config.model:
        yield value.config.model
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _towers(one)
    elif isinstance(value, dict):
        yield from _towers(list(value.values()))


def require_finite(values: Tensor, method: str, what: str, *, dtype: torch.dtype | None = None) -> None:
    """Raise a ValueError unless all of `values` are finite: torch sorts NaN first, so tokens 0 .. k - 1 would stay.

    Args:    method: whose ranking it is   what: a plural noun for the values
             dtype: in which they were computed, if not their own
    """
    if values.is_meta:  # shapes alone: nothing is computed
        return
    wrong = values.numel() - int(values.isfinite().sum())
    if wrong:
        narrow = str(dtype or values.dtype).removeprefix("torch.")
        raise ValueError(
            f"method {method!r} ranks tokens by {what} that must be finite, and {wrong} of {values.numel()} are NaN or "
            f"infinite: a weight may be damaged, or {narrow} too narrow for what is computed (try float32)."
        )
