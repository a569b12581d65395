"""A picture inside the language model: which columns it has, what is left of it, and what its stages chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salience.core.precision import full_precision
from salience.core.types import Merge, Selection, TokenContext, VisualGrid
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.last_token import last_columns, with_last
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.finite import require_finite
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.pruned_inputs import PrunedInputs
from salience.vlm.tower.encoded_views import places_of
from salience.vlm.trace import StageTrace


class InLLMPicture:
    """One view of the call.

    row: of the prompt.   columns: (m,) int64, its places in the prompt that enters the language model, newlines too.
    kept: (k,) its tokens that are left, numbered among all of them.   stages: what each stage left.
    ends: whether the row ends with it, so that its last token stays.
    """

    def __init__(
        self, row: int, columns: Tensor, kept: Tensor, places: Callable[[Tensor], Tensor], tokens: Tensor,
        budget: Budget, *, ends: bool = False,
    ) -> None:  # fmt: skip
        self.row, self.columns, self.kept, self.budget = row, columns, kept, budget
        self._ends = ends
        self.stages: list[StageTrace] = []
        self.scores: Tensor | None = None
        self._places, self._tokens = places, tokens  # tokens: (n,), the place of each among all of the view's
        self._entered = kept
        self._in_prompt = places(kept)  # (all its places,) bool

    @property
    def keeps_all(self) -> bool:
        """Whether the budget is every token that enters the language model."""
        return self.budget.tokens is not None and self.budget.tokens >= len(self._entered)

    @property
    def token_columns(self) -> Tensor:
        """(k,): the columns of the tokens that are left."""
        return self._columns_of(self.kept)

    @property
    def stays(self) -> Tensor:
        """(m,) bool: which of `columns` are left; a newline is where a token of its row is."""
        return self._places(self.kept)[self._in_prompt]

    def _columns_of(self, kept: Tensor) -> Tensor:
        rank = self._in_prompt.long().cumsum(0) - 1  # of each place, its number among those in the prompt
        return self.columns[rank[self._tokens[kept]].to(self.columns.device)]

    def choose(
        self, method: InLLMMethod, stage: int, stages: int, layer: int, *, hidden: Tensor, shares: Tensor,
        entered: Tensor, text: Tensor,
    ) -> Selection:  # fmt: skip
        """Let the method choose among what is left, and note it.

        hidden: (k, d)   shares: (r, k)   entered: (L0, d), the row's embeddings   text: (r,), the columns that look
        """
        if stage == 0:  # a cacheless generate begins anew with every token
            self.kept, self.stages = self._entered, []
        context = TokenContext(
            features=hidden,
            grid=VisualGrid(rows=1, columns=len(self.kept)),
            projected=entered[self._columns_of(self._entered).to(entered.device)],
            text=entered[text.to(entered.device)],
            text_attention=shares,
        )
        require_finite(shares, method.name, f"attention values (in front of layer {layer})", dtype=hidden.dtype)
        with full_precision(hidden.device):
            chosen = method.stay(context, self.budget, entered=len(self._entered), stage=stage, stages=stages)
        method.check_selection(chosen, len(self.kept))
        if self._ends:
            chosen = with_last(chosen, len(self.kept), method.name)
        if chosen.scores is not None and len(self.kept) == len(self._tokens):
            self.scores = chosen.scores
        merge = chosen.merge
        if merge is not None:
            merge = Merge(target=merge.target, source=self.kept[merge.source], weight=merge.weight)
        self.kept = self.kept[chosen.kept]
        self.stages.append(StageTrace(layer=layer, kept=self.kept, merge=merge))
        return chosen


def in_llm_pictures(
    adapter: Adapter, encoded: EncodedViews, selections: Sequence[Selection], pruned: PrunedInputs, budget: Budget
) -> list[InLLMPicture]:
    """The call's views as they enter the language model, in `encoded`'s order."""
    found: dict[int, InLLMPicture] = {}
    last = last_columns(pruned.attention_mask).tolist()
    for kind, token in adapter.token_ids.items():
        at = torch.nonzero(pruned.input_ids == token).cpu()  # (places, 2), row by row, as the views are
        start = 0
        for view, selection in enumerate(selections):
            if encoded.kinds[view] != kind:
                continue
            places = _Places(encoded.views[view].shape[0], encoded.breaks[view])
            count = int(places(selection.kept).sum())
            mine = at[start : start + count]
            start += count
            found[view] = InLLMPicture(
                row=int(mine[0, 0]), columns=mine[:, 1], kept=selection.kept, places=places, tokens=places.tokens,
                budget=_of_one(budget, encoded.views[view].shape[0]), ends=int(mine[-1, 1]) == last[int(mine[0, 0])],
            )  # fmt: skip
    return [found[view] for view in sorted(found)]


@dataclass(frozen=True)
class _Places:
    """A view's tokens -> its places in the whole prompt; without the view, which need not outlive the encoding."""

    n: int
    breaks: Tensor | None

    def __call__(self, kept: Tensor) -> Tensor:
        return places_of(self.n, self.breaks, kept)

    @property
    def tokens(self) -> Tensor:
        """(n,): each token's place."""
        return torch.arange(self.n) if self.breaks is None else torch.nonzero(~self.breaks)[:, 0]


def _of_one(budget: Budget, n: int) -> Budget:
    """What is to be left of a view of n tokens; a smaller one than a count asks for stays whole."""
    if budget.mass is not None:
        return budget
    return Budget(tokens=min(budget.tokens, n) if budget.tokens is not None else budget.count(n))
