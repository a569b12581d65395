"""What pruning's parts hand to each other: a grid, what a method sees of one picture, and what it chose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from salience.core.precision import full_precision


@dataclass(frozen=True, kw_only=True)
class VisualGrid:
    """How one picture's visual tokens lie on it: token `i` is the cell (i // columns, i % columns)."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"rows and columns must be at least 1, not {self.rows} and {self.columns}.")

    @property
    def n(self) -> int:
        """Number of visual tokens."""
        return self.rows * self.columns


@dataclass(frozen=True, kw_only=True, eq=False)
class Merge:
    """What some kept tokens become before the projector: sums over a picture's tokens, one entry a summand.

    Kept token `target[e]` (its place among the kept ones) becomes the sum of its entries' weight[e] * token source[e];
    its own old features count only if an entry says so. A kept token without entries stays as it is.

    target, source: (e,) int64, on the CPU.   weight: (e,) float32, on the CPU.
    inside: it happened inside the vision tower, from layer to layer: kept tokens are the sums already, and the entries
    only say which patches went into which, each as much as the others.
    """

    target: Tensor
    source: Tensor
    weight: Tensor
    inside: bool = False

    def sources(self, target: int) -> Tensor:
        """The tokens that went into one kept token, itself among them where it did."""
        return self.source[self.target == target]


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The tokens of one picture that stay.

    kept: (k,) int64 on the CPU, rising, so in raster order.
    scores: (n,) float32 on the CPU, None for a method without scores.
    merge: which of them take others in; None where all stay as they are.
    """

    kept: Tensor
    scores: Tensor | None = None
    merge: Merge | None = None

    def take(self, values: Tensor) -> Tensor:
        """(n, d) of all tokens -> (k, d) of those that stay, the merged ones summed in float32."""
        rows = values[self.kept.to(values.device)]
        if self.merge is None or self.merge.inside:
            return rows
        target, into = torch.unique(self.merge.target, return_inverse=True)
        source, of = torch.unique(self.merge.source, return_inverse=True)
        # as a product: a row for each entry would be many times the picture where a token goes into many
        share = torch.zeros(len(target), len(source)).index_put((into, of), self.merge.weight, accumulate=True)
        with full_precision(values.device):
            sums = share.to(values.device) @ values[source.to(values.device)].float()  # (merged, d)
        return rows.index_copy(0, target.to(values.device), sums.to(rows.dtype))


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenContext:
    """What a method sees of one picture.

    features: (n, d), the vision tower's tokens before the projector, in the model's dtype.
    image_index: the picture's place in the batch.
    cls_attention: (n,) float32, what [CLS] pays each token, mean over heads, or, where the tower has no [CLS], what all
    tokens pay it on average; None unless the method's `needs` names it.
    keys: (n, heads, d_head) float32, of the attention that `cls_attention` is of; None unless `needs` names it.
    projected: (n, d_llm), the tokens after the projector; None unless the method's `needs` names it.
    digest: a number made of the picture's pixels; None unless the method's `needs` names it.
    left: what is left where the method merges inside the tower, the other rows of `features` being nothing; else None.
    frame: the place of a video's frame in it, from 0; None for a picture.
    text: (t, d_llm), the text behind the picture as it enters the language model; only inside it, see `InLLMMethod`.
    text_attention: (t, n) float32, what each text token (or only the last, t = 1) pays each token; only inside.
    """

    features: Tensor
    grid: VisualGrid
    image_index: int = 0
    cls_attention: Tensor | None = None
    keys: Tensor | None = None
    projected: Tensor | None = None
    digest: int | None = None
    left: Selection | None = None
    frame: int | None = None
    text: Tensor | None = None
    text_attention: Tensor | None = None
