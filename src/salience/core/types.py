"""Types shared by the parts of pruning: grid, input of a method, and selection of one picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from salience.core.precision import full_precision


@dataclass(frozen=True, kw_only=True)
class VisualGrid:
    """Grid of one picture's visual tokens: token `i` is at row i // columns and column i % columns."""

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
    """Weighted sums that replace some kept tokens before the projector, one entry for each summand.

    Kept token `target[e]` (its place among the kept ones) becomes the sum of its entries' weight[e] * token source[e];
    its own old features count only if an entry names them. A kept token without entries does not change.

    target, source: (e,) int64, on the CPU.   weight: (e,) float32, on the CPU.
    inside: the merge happened inside the vision tower, from layer to layer. Kept tokens are the sums already, and the
    entries only record which patches went into which token, with equal weights.
    """

    target: Tensor
    source: Tensor
    weight: Tensor
    inside: bool = False

    def sources(self, target: int) -> Tensor:
        """Tokens that went into one kept token, itself included if an entry names it."""
        return self.source[self.target == target]


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The tokens of one picture that stay.

    kept: (k,) int64 on the CPU, rising, so in raster order.
    scores: (n,) float32 on the CPU, None for a method without scores.
    merge: tokens that are merged into kept ones; None without merging.
    """

    kept: Tensor
    scores: Tensor | None = None
    merge: Merge | None = None

    def take(self, values: Tensor) -> Tensor:
        """(n, d) of all tokens -> (k, d) of the kept ones; merged tokens are summed in float32."""
        rows = values[self.kept.to(values.device)]
        if self.merge is None or self.merge.inside:
            return rows
        target, into = torch.unique(self.merge.target, return_inverse=True)
        source, of = torch.unique(self.merge.source, return_inverse=True)
        # as a matrix product: one row for each entry would need many times the memory of the picture
        share = torch.zeros(len(target), len(source)).index_put((into, of), self.merge.weight, accumulate=True)
        with full_precision(values.device):
            sums = share.to(values.device) @ values[source.to(values.device)].float()  # (merged, d)
        return rows.index_copy(0, target.to(values.device), sums.to(rows.dtype))


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenContext:
    """Input of a method for one picture.

    features: (n, d), the vision tower's tokens before the projector, in the model's dtype.
    image_index: index of the picture in the batch.
    cls_attention: (n,) float32, attention of [CLS] to each token, mean over heads. In a tower without [CLS], mean
    attention of all tokens to it. None unless the method's `needs` names it.
    keys: (n, heads, d_head) float32, keys of the same attention; None unless `needs` names it.
    projected: (n, d_llm), the tokens after the projector; None unless the method's `needs` names it.
    digest: hash of the picture's pixels; None unless the method's `needs` names it.
    left: the remaining tokens of a method that merges inside the tower (other rows of `features` are unused) or None.
    frame: index of the frame in its video, from 0; None for a picture.
    text: (t, d_llm), embeddings of the text behind the picture; only for an `InLLMMethod`.
    text_attention: (t, n) float32, attention of each text token (or of the last, t = 1) to each token; only for an
    `InLLMMethod`.
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
