"""A language model's layers, as one needs them to look into: what a token pays the others, how far a layer reaches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.precision import full_precision
from salience.vlm.thread_hooks import ThreadHook, hooked

_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
_PARTS = ("q_proj", "k_proj", "head_dim", "scaling", "layer_idx")
# Layers without a window get no rotary embedding in these, whatever is handed to them.
_TURNS_IN_WINDOWS = frozenset({"Cohere2Attention"})


class LLMLayers:
    """The decoder layers of a language model of transformers, in the order they run.

    Raises:  ValueError when they are not Llama-like: `input_layernorm`, and `self_attn` with q_proj, k_proj and rotary
             embeddings of its own module
    """

    def __init__(self, language_model: nn.Module) -> None:
        self.language_model: Any = language_model
        layers = getattr(language_model, "layers", None)
        self.layers: list[Any] = list(layers) if isinstance(layers, nn.ModuleList) else []
        self.config: Any = getattr(language_model, "config", None)
        kinds = set(getattr(self.config, "layer_types", None) or ())
        if not self.layers or not all(map(_is_known, self.layers)) or not kinds <= _LAYER_TYPES:
            raise ValueError(
                f"tokens can be dropped between Llama-like layers only, which {type(language_model).__name__} does not "
                "have: use a method that prunes before it, such as 'uniform' or a scorer."
            )

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def kernel(self) -> str:
        """The attention kernel in use."""
        return str(getattr(self.config, "_attn_implementation", ""))

    def window(self, index: int) -> int | None:
        """How many columns a layer reaches back, its own counted; None for all."""
        kinds, window = getattr(self.config, "layer_types", None), getattr(self.config, "sliding_window", None)
        return window if not kinds or kinds[index] == "sliding_attention" else None

    @torch.no_grad()
    def attention(self, index: int, hidden: Tensor, rows: Tensor, rotary: Any, mask: Tensor | None) -> Tensor:
        """(B, R, L) float32: what the tokens `rows` pay all in a layer, mean over heads, whatever kernel it runs.

        The softmax is over all that a row may see. Only these rows are computed, and the keys a second time.

        Args:    hidden: (B, L, d), what enters the layer   rows: (B, R) int64, which of the L
                 rotary: cos and sin, (B or 1, L, d_head)   mask: (B or 1, 1, L, L) bool or additive, None for causal
        """
        layer = self.layers[index]
        normed = layer.input_layernorm(hidden)
        return attend(layer.self_attn, normed, rows, rotary, mask)


@torch.no_grad()
def attend(attention: Any, hidden: Tensor, rows: Tensor, rotary: Any, mask: Tensor | None) -> Tensor:
    """(B, R, L) float32: see `LLMLayers.attention`; hidden is what enters the attention itself."""
    batch, length, width = hidden.shape
    query = _heads(attention, "q", hidden.gather(1, rows[..., None].expand(-1, -1, width)))  # (B, H, R, d_head)
    key = _heads(attention, "k", hidden)  # (B, H_kv, L, d_head)
    if _turns(attention):
        turn = sys.modules[type(attention).__module__].apply_rotary_pos_emb
        cos, sin = (part.expand(batch, -1, -1) for part in rotary)
        own = [part.gather(1, rows[..., None].expand(-1, -1, part.shape[-1])) for part in (cos, sin)]
        query, key = turn(query, query, *own)[0], turn(key, key, cos, sin)[0]
    key = key.float().repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    with full_precision(query.device):
        logits = query.float() @ key.transpose(-1, -2) * float(attention.scaling)  # (B, H, R, L)
    if (cap := getattr(attention, "attn_logit_softcapping", None)) is not None:
        logits = (logits / cap).tanh() * cap
    if mask is None:
        seen = torch.arange(length, device=hidden.device) <= rows[..., None]  # (B, R, L)
        logits = logits.masked_fill(~seen[:, None], float("-inf"))
    else:
        mine = mask.expand(batch, 1, -1, -1).gather(2, rows[:, None, :, None].expand(-1, -1, -1, length))
        boolean = mine.dtype == torch.bool
        logits = logits.masked_fill(~mine, torch.finfo(torch.float32).min) if boolean else logits + mine.float()
    shares: Tensor = logits.softmax(-1).mean(1)
    return shares


def _heads(attention: Any, kind: str, hidden: Tensor) -> Tensor:
    """(B, L, d) -> queries or keys (B, heads, L, d_head), normed where the family does."""
    heads: Tensor = getattr(attention, f"{kind}_proj")(hidden).unflatten(-1, (-1, int(attention.head_dim)))
    norm = getattr(attention, f"{kind}_norm", None)
    return (heads if norm is None else norm(heads)).transpose(1, 2)


def _turns(attention: Any) -> bool:
    if type(attention).__name__ in _TURNS_IN_WINDOWS:
        return attention.sliding_window is not None
    return bool(getattr(attention, "use_rope", True))


def _is_known(layer: Any) -> bool:
    attention = getattr(layer, "self_attn", None)
    return (
        hasattr(layer, "input_layernorm")
        and all(hasattr(attention, part) for part in _PARTS)
        and hasattr(sys.modules.get(type(attention).__module__), "apply_rotary_pos_emb")
    )


@contextmanager
def watched(decoder: LLMLayers, rows: Tensor, keep: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Hand `keep` each layer's attention while the language model runs: `keep(layer, (B, R, L) float32)`.

    See `LLMLayers.attention`; rows: (B, R) int64, of the L columns. The hooks go again on leaving.

    Raises:  ValueError when the language model runs another attention kernel than sdpa or eager
    """
    if decoder.kernel not in ("sdpa", "eager"):
        raise ValueError(
            f"attention is read with the masks of sdpa and eager attention, not {decoder.kernel}'s: use "
            "model.set_attn_implementation('sdpa')."
        )

    def hook_of(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            keep(
                index,
                decoder.attention(
                    index, hidden, rows.to(hidden.device), kwargs["position_embeddings"], kwargs.get("attention_mask")
                ),
            )

        return hook

    with hooked(*(ThreadHook(layer, "before", hook_of(index)) for index, layer in enumerate(decoder.layers))):
        yield
