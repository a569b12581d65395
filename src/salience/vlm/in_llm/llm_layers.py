"""The layers of a language model and their attention, computed a second time for a few rows."""

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
# Their layers without a window get no rotary embedding, although one is handed to them.
_ROTARY_IN_WINDOWS_ONLY = frozenset({"Cohere2Attention"})


class LLMLayers:
    """The layers of a transformers language model, in the order they run.

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
                "attention is read and tokens are dropped in Llama-like layers only, which "
                f"{type(language_model).__name__} does not have: use a method that prunes before them, such as "
                "'uniform' or a scorer."
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
        """Number of columns a layer reaches back, its own counted; None for all."""
        kinds, window = getattr(self.config, "layer_types", None), getattr(self.config, "sliding_window", None)
        return window if not kinds or kinds[index] == "sliding_attention" else None

    @torch.no_grad()
    def attention(
        self, index: int, hidden: Tensor, rows: Tensor, rotary: Any, mask: Tensor | None, columns: slice = slice(None)
    ) -> Tensor:
        """(B, R, C) float32: attention that the tokens `rows` pay those of `columns` in a layer, mean over heads.

        The softmax is over all tokens that a row may see. Any attention kernel will do: only these rows are computed,
        and the keys a second time.

        Args:    hidden: (B, L, d), the layer's input   rows: (B, R) int64, indices into L
                 rotary: cos and sin, (B or 1, L, d_head)   mask: (B or 1, 1, L, L) bool or additive, None for causal
        """
        layer = self.layers[index]
        attention, hidden = layer.self_attn, layer.input_layernorm(hidden)
        batch, length, width = hidden.shape
        query = _heads(attention, "q", hidden.gather(1, rows[..., None].expand(-1, -1, width)))  # (B, H, R, d_head)
        key = _heads(attention, "k", hidden)  # (B, H_kv, L, d_head)
        if _has_rotary(attention):
            rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
            cos, sin = (part.expand(batch, -1, -1) for part in rotary)
            own = [part.gather(1, rows[..., None].expand(-1, -1, part.shape[-1])) for part in (cos, sin)]
            query, key = rotate(query, query, *own)[0], rotate(key, key, cos, sin)[0]
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
        return logits.softmax(-1)[..., columns].mean(1)


def _heads(attention: Any, kind: str, hidden: Tensor) -> Tensor:
    """(B, L, d) -> queries or keys (B, heads, L, d_head), normed where the family does."""
    heads: Tensor = getattr(attention, f"{kind}_proj")(hidden).unflatten(-1, (-1, int(attention.head_dim)))
    norm = getattr(attention, f"{kind}_norm", None)
    return (heads if norm is None else norm(heads)).transpose(1, 2)


def _has_rotary(attention: Any) -> bool:
    if type(attention).__name__ in _ROTARY_IN_WINDOWS_ONLY:
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
def watch_layers(
    layers: LLMLayers, rows: Tensor, keep: Callable[[int, Tensor], None], *, columns: slice = slice(None)
) -> Iterator[None]:
    """Hand `keep` each layer's number and its attention from `rows` (B, R) to `columns`, (B, R, C), as it runs.

    Raises:  ValueError when the language model runs another attention kernel than sdpa or eager
    """
    if layers.kernel not in ("sdpa", "eager"):
        raise ValueError(
            f"attention is read with the masks of sdpa and eager attention, not {layers.kernel}'s: use "
            "model.set_attn_implementation('sdpa')."
        )

    def hook_of(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            rotary, mask = kwargs["position_embeddings"], kwargs.get("attention_mask")
            keep(index, layers.attention(index, hidden, rows.to(hidden.device), rotary, mask, columns))

        return hook

    with hooked(*(ThreadHook(layer, "before", hook_of(index)) for index, layer in enumerate(layers.layers))):
        yield
