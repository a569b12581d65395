"""One picture inside the language model: its columns and its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from salience.core.precision import full_precision
from salience.core.types import Merge, Selection, TokenContext
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.methods.base import require_finite
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.pruned_inputs import PrunedInputs
from salience.vlm.token_choice import last_columns, with_last
from salience.vlm.tower.encoded_views import places_of
from salience.vlm.trace import StageTrace


@dataclass(kw_only=True, eq=False)
class InLLMPicture:
    """One view of a call inside the language model.

    row: of the prompt.   columns: (m,) int64, its places in the prompt that enters the language model, newlines too.
    kept: (k,) its tokens that are left, numbered among all n.   stage_traces: what each stage left.
    places: kept tokens -> bool for each of all its places.   tokens: (n,), the place of each token among all of those.
    ends: whether the row ends with it, so that its last token stays.
    """

    row: int
    columns: Tensor
    kept: Tensor
    places: Callable[[Tensor], Tensor]
    tokens: Tensor
    budget: Budget
    ends: bool = False
    stage_traces: list[StageTrace] = field(default_factory=list, init=False)
    scores: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._entered = self.kept
        self._in_prompt = self.places(self.kept)

    @property
    def keeps_all(self) -> bool:
        """Whether the budget is every token that enters the language model."""
        return self.budget.tokens is not None and self.budget.tokens >= len(self._entered)

    @property
    def token_columns(self) -> Tensor:
        """(k,): the columns of the tokens that are left."""
        return self._columns_of(self.kept)

    @property
    def entered_columns(self) -> Tensor:
        """The columns of the tokens that entered the language model."""
        return self._columns_of(self._entered)

    @property
    def stays(self) -> Tensor:
        """(m,) bool: the columns that are left; a newline is left where a token of its row is."""
        return self.places(self.kept)[self._in_prompt]

    def _columns_of(self, kept: Tensor) -> Tensor:
        rank = self._in_prompt.long().cumsum(0) - 1  # of each place, its number among those in the prompt
        return self.columns[rank[self.tokens[kept]].to(self.columns.device)]

    def choose(self, method: InLLMMethod, ctx: TokenContext, *, layer: int, stage: int, stages: int) -> Selection:
        """Let the method choose among the tokens that are left before a layer, and note what it left.

        ctx: see `InLLMMethod.stay`, with `text_attention` (r, k).
        """
        assert ctx.text_attention is not None
        where, hidden = f"attention values (in front of layer {layer})", ctx.features
        require_finite(ctx.text_attention, method.name, where, dtype=hidden.dtype)
        with full_precision(hidden.device):
            chosen = method.stay(ctx, self.budget, entered=len(self._entered), stage=stage, stages=stages)
        method.check_selection(chosen, len(self.kept))
        if self.ends:
            chosen = with_last(chosen, len(self.kept), method.name)
        if chosen.scores is not None and len(self.kept) == len(self.tokens):
            self.scores = chosen.scores
        merge = chosen.merge
        if merge is not None:
            merge = Merge(target=merge.target, source=self.kept[merge.source], weight=merge.weight)
        self.kept = self.kept[chosen.kept]
        self.stage_traces.append(StageTrace(layer=layer, kept=self.kept, merge=merge))
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
            n, breaks = encoded.views[view].shape[0], encoded.breaks[view]
            places = partial(places_of, n, breaks)  # does not hold the view, which may be freed meanwhile
            mine = at[start : start + int(places(selection.kept).sum())]
            start += len(mine)
            row = int(mine[0, 0])
            found[view] = InLLMPicture(
                row=row,
                columns=mine[:, 1],
                kept=selection.kept,
                places=places,
                tokens=torch.arange(n) if breaks is None else torch.nonzero(~breaks)[:, 0],
                budget=_of_one(budget, n),
                ends=int(mine[-1, 1]) == last[row],
            )
    return [found[view] for view in sorted(found)]


def _of_one(budget: Budget, n: int) -> Budget:
    """The budget of a view of n tokens; a smaller view than a number of tokens asks for stays whole."""
    if budget.mass is not None:
        return budget
    return Budget(tokens=min(budget.tokens, n) if budget.tokens is not None else budget.count(n))
