"""Attention of a vision tower, computed a second time when a method needs it, with any attention kernel.

A tower without [CLS] has no summary token whose attention could be read. *Received attention* replaces it: the
attention that a token gets from all tokens of its picture, mean over these and over heads, in the layer whose output
the model uses. It adds up to 1 over a picture; [CLS] attention nearly does. The trace and the reports call it a
substitute, because the papers of the [CLS] methods did not measure it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.precision import full_precision
from salience.vlm.thread_hooks import ThreadHook, hooked

# Attention logits in memory at a time: 64 MB of float32. A tower of 4096 patches has 1 GB of them for a picture.
_LOGITS_AT_A_TIME = 2**24

SUBSTITUTE = "received attention replaces [CLS] attention, which this model's vision tower does not have"


@contextmanager
def watch_input(attention: nn.Module) -> Iterator[dict[str, Any]]:
    """Collect the arguments of an attention module while this thread runs the tower."""
    seen: dict[str, Any] = {}

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        seen.update(kwargs)
        if args:
            seen["hidden_states"] = args[0]

    with hooked(ThreadHook(attention, "before", hook)):
        yield seen


@torch.no_grad()
def received(query: Tensor, key: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """(images, n) float32: the mean over heads and queries of softmax(scale Q K^T), for each key.

    Args:    query, key: (images, heads, n, d_head)   mask: (images, n) bool, False for padding; None for no padding
    """
    images, heads, n, _ = query.shape
    rows = max(1, _LOGITS_AT_A_TIME // (heads * n))
    total = torch.zeros(images, n, device=query.device)
    there = torch.ones(images, n, dtype=torch.bool, device=query.device) if mask is None else mask
    for i, start in itertools.product(range(images), range(0, n, rows)):
        with full_precision(query.device):
            logits = query[i, :, start : start + rows].float() @ key[i].float().transpose(1, 2)  # (heads, rows, n)
        shares = (logits * scale).masked_fill(~there[i], float("-inf")).softmax(-1).mean(0)  # (rows, n)
        total[i] += shares[there[i, start : start + rows]].sum(0)
    return total / there.sum(1, keepdim=True)


class ProjectedAttention:
    """Attention of one layer with q_proj and k_proj (CLIP, SigLIP, Idefics3), from its input; see `watch_input`."""

    def __init__(self, attention: Any, seen: dict[str, Any]) -> None:
        self.attention, self.seen = attention, seen

    def __call__(self) -> Tensor:
        """(images, n) float32: received attention."""
        hidden = self.seen["hidden_states"]
        query, key = (self._in_heads(layer(hidden)) for layer in (self.attention.q_proj, self.attention.k_proj))
        return received(query, key, float(self.attention.scale), seen_patches(self.seen.get("attention_mask")))

    @torch.no_grad()
    def keys(self) -> Tensor:
        """(images, n, heads, d_head) float32."""
        return self._in_heads(self.attention.k_proj(self.seen["hidden_states"])).transpose(1, 2).float()

    def _in_heads(self, x: Tensor) -> Tensor:
        """(images, n, d) -> (images, heads, n, d_head)."""
        return x.view(*x.shape[:2], int(self.attention.num_heads), -1).transpose(1, 2)


def seen_patches(mask: Tensor | None) -> Tensor | None:
    """A layer's mask in any of transformers' forms -> (images, n) bool, the patches that others see; None for all."""
    if mask is None:
        return None
    allowed = mask if mask.dtype == torch.bool else (mask != 0 if mask.dim() == 2 else mask == 0)
    return allowed if allowed.dim() == 2 else allowed[:, 0].any(1)


class FusedAttention:
    """Attention of one layer with qkv and rotary embeddings (Qwen), all pictures in one row, from its input.

    A query sees its own segment, a frame or a window of one. `keys` are those before the rotary embedding: they depend
    on content and not on position.
    """

    def __init__(self, attention: Any, seen: dict[str, Any]) -> None:
        self.attention, self.seen = attention, seen

    def __call__(self) -> Tensor:
        """(N,) float32: attention that each patch gets, summed over its segment's queries."""
        query, key = self._queries_and_keys()
        cos, sin = (part.float().unsqueeze(-2) for part in self.seen["position_embeddings"])  # (N, 1, d_head)
        query, key = (_rotated(x, cos, sin).transpose(0, 1)[None] for x in (query, key))  # (1, heads, N, d_head)
        ends = self.seen["cu_seqlens"].tolist()
        parts = [
            received(query[:, :, a:b], key[:, :, a:b], float(self.attention.scaling))[0] * (b - a)
            for a, b in itertools.pairwise(ends)
            if b > a
        ]
        return torch.cat(parts)

    def keys(self) -> Tensor:
        """(N, heads, d_head) float32."""
        return self._queries_and_keys()[1]

    @torch.no_grad()
    def _queries_and_keys(self) -> tuple[Tensor, Tensor]:
        """(N, heads, d_head) float32 each."""
        qkv = self.attention.qkv(self.seen["hidden_states"]).float()
        query, key, _ = qkv.unflatten(-1, (3, int(self.attention.num_heads), -1)).unbind(1)
        return query, key


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, the halves paired."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def pooled_shares(shares: Tensor, factor: int) -> Tensor:
    """(images, patches) of a square grid -> (images, n): the sum over each token's factor x factor patches."""
    return pooled_keys(shares[..., None, None], factor)[..., 0, 0] * factor**2


def pooled_keys(keys: Tensor, factor: int) -> Tensor:
    """(images, patches, heads, d_head) of a square grid -> (images, n, heads, d_head): the mean over these patches."""
    images, patches, heads, _ = keys.shape
    side = int(patches**0.5)
    square = keys.permute(0, 2, 3, 1).reshape(images * heads, -1, side, side)
    pooled = nn.functional.avg_pool2d(square, factor).flatten(2)  # (images * heads, d_head, n)
    return pooled.reshape(images, heads, -1, pooled.shape[2]).permute(0, 3, 1, 2)
