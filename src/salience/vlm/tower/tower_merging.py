"""Tokens merged inside a CLIP or SigLIP tower, between each layer's attention and its MLP, as ToMe does.

The tower's own modules are run one by one, without hooks, so the tower stays unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.types import Merge, Selection
from salience.ops.token_merging import merge_means, soft_match
from salience.ssm.layers.projections import is_plain

#: (tokens of a picture, layers) -> number of tokens merged away in each layer
Schedule = Callable[[int, int], Sequence[int]]

_KERNELS = ("sdpa", "eager")  # these accept a number that is added to each logit


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedTokens:
    """The k tokens that remain of each picture's n patches.

    states: (images, k, d).   places: (images, k) int64, rising: the patch at whose place each token is.
    owner: (images, n) int64, the token that each patch was merged into.
    """

    states: Tensor
    places: Tensor
    owner: Tensor

    def spread(self) -> Tensor:
        """(images, n, d): each token in its place, zero in the others."""
        empty = self.states.new_zeros(*self.owner.shape, self.states.shape[-1])
        return empty.scatter(1, self.places[..., None].expand_as(self.states), self.states)

    def selections(self) -> list[Selection]:
        """For each picture the kept tokens, and the patches merged into each."""
        return [_selection(places, owner) for places, owner in zip(self.places.cpu(), self.owner.cpu(), strict=True)]


def merged_tokens(
    tower: Any, pixel_values: Tensor, *, layers: int, prefix: int, schedule: Schedule, normed: bool = False
) -> MergedTokens:
    """Run the first `layers` layers of a tower and merge tokens in each by the schedule, but never the first `prefix`.

    Attention is proportional: the log of a key's size, its number of patches, is added to each of its logits. Keys are
    compared by their mean over heads. `normed`: whether the tower's last norm follows.

    Raises:  ValueError when the tower's attention kernel accepts no such numbers
    """
    kernel = str(tower.config._attn_implementation)
    if kernel not in _KERNELS:
        raise ValueError(f"merging in the tower weighs attention by size: use sdpa or eager for it, not {kernel!r}.")
    inner = getattr(tower, "vision_model", tower)  # in earlier transformers it is a submodule
    hidden = inner.embeddings(pixel_values)  # (images, prefix + n, d)
    if hasattr(inner, "pre_layrnorm"):  # spelled like this in transformers
        hidden = inner.pre_layrnorm(hidden)
    images, n = hidden.shape[0], hidden.shape[1] - prefix
    sizes = torch.ones(images, n, device=hidden.device)
    places = owner = torch.arange(n, device=hidden.device).expand(images, -1)
    for layer, count in zip(inner.encoder.layers[:layers], schedule(n, layers), strict=True):
        read = layer.layer_norm1(hidden)
        merging = sizes.shape[1] < n  # else every token is one patch
        mask = nn.functional.pad(sizes.log(), (prefix, 0))[:, None, None].to(hidden.dtype) if merging else None
        hidden = hidden + layer.self_attn(hidden_states=read, attention_mask=mask)[0]
        if count:
            matching = soft_match(mean_keys(layer.self_attn, read[:, prefix:]), count)
            merged, sizes = merge_means(hidden[:, prefix:], sizes, matching)
            hidden = torch.cat([hidden[:, :prefix], merged], dim=1)
            places, owner = places.gather(1, matching.left), matching.place.gather(1, owner)
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    hidden = inner.post_layernorm(hidden) if normed else hidden
    return MergedTokens(states=hidden[:, prefix:], places=places, owner=owner)


@torch.no_grad()
def mean_keys(attention: Any, normed: Tensor) -> Tensor:
    """(images, t, d) -> (images, t, d_head): the keys' mean over heads."""
    heads, layer = int(attention.num_heads), attention.k_proj
    if is_plain(layer) and type(layer.weight) is nn.Parameter and layer.weight.dtype == normed.dtype:
        # the mean weight: the products of one head instead of all
        weight = layer.weight.view(heads, -1, layer.weight.shape[1]).mean(0)
        bias = None if layer.bias is None else layer.bias.view(heads, -1).mean(0)
        return nn.functional.linear(normed, weight, bias)
    keys: Tensor = layer(normed)
    return keys.view(*keys.shape[:2], heads, -1).mean(2)


def _selection(places: Tensor, owner: Tensor) -> Selection:
    sizes = torch.bincount(owner, minlength=len(places))
    source = (sizes[owner] > 1).nonzero()[:, 0]
    target = owner[source]
    merge = Merge(target=target, source=source, weight=1 / sizes[target].float(), inside=True)
    return Selection(kept=places, merge=merge if len(source) else None)
