"""Columns of the prompt that each layer holds once tokens were dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import Cache

_NAME = "_salience_layer_columns"  # an attribute of the cache, so that a copy of the cache takes it along


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerCut:
    """The columns that are left from `layer` on: index (B, L) int64, of the prompt's, -1 for padding put in."""

    layer: int
    index: Tensor

    def take(self, values: Tensor, dim: int) -> Tensor:
        """The left part of values that run along the prompt in `dim`; rows come first, or one for all."""
        index = self.index.to(values.device).clamp_min(0)
        if values.shape[0] == 1 and bool((index == index[:1]).all()):
            index = index[:1]
        values = values.expand(index.shape[0], *values.shape[1:])
        dim = dim % values.dim()
        shape = [len(index), *[index.shape[1] if axis == dim else 1 for axis in range(1, values.dim())]]
        wanted = [-1 if axis in (0, dim) else size for axis, size in enumerate(values.shape)]
        return values.gather(dim, index.view(shape).expand(wanted))

    def mask(self, mask: Tensor | None, real: Tensor, dtype: torch.dtype, *, boolean: bool) -> Tensor | None:
        """The prompt's (B, 1, L0, L0) mask -> (B, 1, L, L); None where the plain causal mask is left.

        real: (B, L0), the prompt's own mask.
        """
        valid = (self.index >= 0).to(real.device)
        if mask is None:
            if bool(valid.all()):
                return None
            valid = valid & (real.gather(1, self.index.to(real.device).clamp_min(0)) != 0)
            allowed = valid[:, None, None, :] & torch.ones(2 * valid.shape[1:], dtype=torch.bool).tril().to(real.device)
            return allowed if boolean else additive(allowed, dtype)
        left = self.take(self.take(mask, 2), 3)
        if bool(valid.all()):
            return left
        hidden = ~valid[:, None, None, :].to(left.device)
        return left & ~hidden if boolean else left.masked_fill(hidden, torch.finfo(dtype).min)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerColumns:
    """The cuts of a prefill of `width` columns, in the order of their layers; noted on the cache that it filled."""

    width: int
    cuts: tuple[LayerCut, ...]

    @classmethod
    def on(cls, cache: Cache) -> LayerColumns | None:
        """The columns noted on a cache; None where its layers all hold the same."""
        return getattr(cache, _NAME, None)

    def leave_on(self, cache: Cache) -> None:
        """Note this on the cache."""
        setattr(cache, _NAME, self)

    def cut(self, layer: int) -> LayerCut | None:
        """The cut that holds for a layer; None where it has the whole prompt."""
        return next((cut for cut in reversed(self.cuts) if cut.layer <= layer), None)

    def require_whole(self, cache: Cache, past: int) -> None:
        """Raise a ValueError unless each layer holds its part of the prompt and all that followed, of `past` columns.

        A cache that was cropped to one length for all layers has lost later tokens in some of them.
        """
        for index, layer in enumerate(cache.layers):
            cut, keys = self.cut(index), getattr(layer, "keys", None)
            if keys is None or getattr(layer, "is_sliding", False):
                continue
            wanted = past - (0 if cut is None else self.width - cut.index.shape[1])
            if keys.shape[-2] != wanted:
                raise ValueError(
                    f"the pruned cache was cropped unevenly: layer {index} has {keys.shape[-2]} columns, not {wanted}."
                )


def whole_columns(index: Tensor, rows: int, width: int, total: int) -> Tensor:
    """(rows, L + new): columns in a sequence of `total`, of a pruned prompt and what follows the whole one.

    Args:    index: (B, L), those of the prompt, `width` in whole
    Raises:  ValueError when `rows` is no multiple of the prompt's rows
    """
    if rows % len(index):
        raise ValueError(f"the pruned prompt has {len(index)} rows, which {rows} do not come from.")
    new = torch.arange(width, max(width, total), device=index.device).expand(rows, -1)
    return torch.cat([index.repeat_interleave(rows // len(index), 0), new], dim=1)


def decode_mask(
    columns: Tensor, real: Tensor | None, new: int, window: int | None, dtype: torch.dtype, *, boolean: bool
) -> Tensor | None:
    """(B, 1, new, W): the columns (B, W) that the last `new` of them, text, may see; None where one token sees all.

    A window's distance is the one in the whole prompt.   real: (B, whole sequence), the caller's mask; None for ones.
    """
    valid = columns >= 0
    if real is not None:
        real = real.to(columns.device)
        valid = valid & (real.gather(1, columns.clamp_min(0)) != 0)
    mine, theirs = columns[:, -new:, None], columns[:, None, :]
    allowed = valid[:, None] & (theirs <= mine)  # (B, new, W)
    if window is not None:
        allowed = allowed & (theirs > mine - window)
    if boolean and new == 1 and bool(allowed.all()):
        return None
    return allowed[:, None] if boolean else additive(allowed[:, None], dtype)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as numbers to add to logits, which eager attention takes."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)
