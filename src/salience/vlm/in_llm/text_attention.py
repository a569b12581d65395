"""What a language model's text looks at in a picture, layer by layer, with any attention kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.precision import full_precision
from salience.vlm.thread_hooks import ThreadHook, hooked

Keep = Callable[[int, Tensor], None]


@contextmanager
def watch_attention(language_model: nn.Module, *, rows: slice, columns: slice, keep: Keep) -> Iterator[None]:
    """Hand `keep` each layer's attention from `rows` to `columns` while the language model runs.

    `keep(layer, shares)` gets shares (B, rows, columns) float32, mean over heads, softmax over all that a row may see
    (so a row's shares add up to at most 1). Only these rows are computed a second time; the hooks go again on leaving.

    Raises:  ValueError when the layers are not Llama-like (q_proj, k_proj and rotary embeddings handed to each)
    """
    layers: Any = getattr(language_model, "layers", None)
    if layers is None or not all(hasattr(getattr(layer, "self_attn", None), "q_proj") for layer in layers):
        kind = type(language_model).__name__
        raise ValueError(f"text attention needs Llama-like layers, which {kind} does not have.")

    def hook_of(index: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            rotary, mask = kwargs["position_embeddings"], kwargs.get("attention_mask")
            keep(index, _shares(module, hidden, rotary, mask, rows, columns))

        return hook

    with hooked(*(ThreadHook(layer.self_attn, "before", hook_of(index)) for index, layer in enumerate(layers))):
        yield


@torch.no_grad()
def _shares(attention: Any, hidden: Tensor, rotary: Any, mask: Tensor | None, rows: slice, columns: slice) -> Tensor:
    """(B, R, C) float32 of hidden (B, L, d); mask: additive (B, 1, L, L), or None for causal."""
    d_head = int(attention.head_dim)
    query = attention.q_proj(hidden[:, rows]).unflatten(-1, (-1, d_head)).transpose(1, 2)  # (B, H, R, d_head)
    key = attention.k_proj(hidden).unflatten(-1, (-1, d_head)).transpose(1, 2)  # (B, H_kv, L, d_head)
    cos, sin = (part.unsqueeze(1) for part in rotary)  # (B, 1, L, d_head)
    query = _turn(query, cos[:, :, rows], sin[:, :, rows]).float()
    key = _turn(key, cos, sin).float().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    with full_precision(query.device):
        logits = query @ key.transpose(-1, -2) * float(attention.scaling)  # (B, H, R, L)
    if mask is None:
        length = hidden.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
        logits = logits.masked_fill(~seen[rows], float("-inf"))
    else:
        logits = logits + mask[:, :, rows].float()
    return logits.softmax(-1)[..., columns].mean(1)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, the halves paired as Llama does."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
