"""Layers of a language model whose work depends on distance in columns: windows, chunks, convolutions, recurrences."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_WHOLE = frozenset({"full_attention", "moe", "mlp", "sparse", "dense"})  # these know distance from position ids alone
_RECURRENT = frozenset({"linear_attention", "conv"})
_MIXERS = ("linear_attn", "conv", "mamba", "mixer")


@dataclass(frozen=True)
class Reach:
    """Reach of a layer's attention in columns, its own counted; `chunked`: back to the start of its chunk."""

    size: int
    chunked: bool = False


@dataclass(frozen=True, eq=False)
class LayerKinds:
    """Layers of one language model, sorted by how they depend on distance.

    reaches: windows and chunks by layer.   mixers: convolutions and recurrences by layer.
    scaled: attention modules that scale their queries by column, Llama4's "temperature tuning".
    unknown: reason why distance cannot be kept in some layer, a clause; empty where it can.
    """

    layers: list[Any] = field(default_factory=list)
    reaches: dict[int, Reach] = field(default_factory=dict)
    mixers: dict[int, nn.Module] = field(default_factory=dict)
    scaled: list[Any] = field(default_factory=list)
    unknown: str = ""


def layer_kinds(language_model: Any) -> LayerKinds:
    """The kinds of a transformers language model's layers, from its config and its modules."""
    config: Any = getattr(language_model, "config", None)
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    found = getattr(language_model, "layers", None)
    layers = list(found) if isinstance(found, nn.ModuleList) else []
    names = _names(language_model, config, len(layers))
    reaches: dict[int, Reach] = {}
    mixers: dict[int, nn.Module] = {}
    for index, name in enumerate(names):
        if name in _RECURRENT:
            mixer = _mixer(layers[index]) if index < len(layers) else None
            if mixer is None:
                return LayerKinds(unknown=f"it has {name!r} layers whose padding cannot be masked from outside")
            mixers[index] = mixer
        elif name in ("sliding_attention", "chunked_attention"):
            chunked = name == "chunked_attention"
            size = getattr(config, "attention_chunk_size" if chunked else "sliding_window", None)
            if size is None:
                continue
            if index >= len(layers) or "attention_mask" not in inspect.signature(layers[index].forward).parameters:
                return LayerKinds(unknown=f"it has {name!r} layers whose mask cannot be reached")
            reaches[index] = Reach(int(size), chunked)
        elif name not in _WHOLE:
            return LayerKinds(unknown=f"it has {name!r} layers, which cannot keep the place of a dropped token")
    inside = {id(part) for mixer in mixers.values() for part in mixer.modules()}
    for layer in layers:
        for part in layer.modules():
            convolves = isinstance(part, nn.Conv1d) or "ShortConv" in type(part).__name__
            if convolves and id(part) not in inside:
                return LayerKinds(unknown=f"{type(part).__name__} in its layers combines neighbouring tokens")
    attentions: list[Any] = [getattr(layer, "self_attn", None) for layer in layers]
    scaled = [a for a in attentions if getattr(a, "attn_temperature_tuning", False) and not a.use_rope]
    return LayerKinds(layers, reaches, mixers, scaled)


def is_checkpointed(language_model: Any) -> bool:
    """Whether gradient checkpointing will run layers a second time, in the backward pass."""
    return any(part.training and getattr(part, "gradient_checkpointing", False) for part in language_model.modules())


def _names(language_model: Any, config: Any, depth: int) -> list[str]:
    names = getattr(config, "layer_types", None)
    if names:
        return list(names)[: depth or None]
    # Without a list all layers are equal. Some configs have a window that their model does not read.
    source = sys.modules.get(type(language_model).__module__)
    if getattr(config, "sliding_window", None) is not None and hasattr(source, "create_sliding_window_causal_mask"):
        return ["sliding_attention"] * max(depth, 1)
    return []


def _mixer(layer: Any) -> nn.Module | None:
    """The recurrent part of a layer, which takes a mask of its own; None if unknown."""
    for name in _MIXERS:
        part = getattr(layer, name, None)
        if isinstance(part, nn.Module):
            parameters = inspect.signature(part.forward).parameters
            if {"hidden_states", "attention_mask"} <= set(parameters):
                return part
    return None
