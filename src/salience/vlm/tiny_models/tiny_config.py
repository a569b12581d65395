"""A configuration with small widths, depths and vocabulary, from which a model of the same class is built quickly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WIDTH, HEADS, HEAD = 64, 4, 16
VOCABULARY = 160
PAD, END, BEGIN, FIRST_SPECIAL, FIRST_WORD = 0, 1, 2, 3, 64  # ids from FIRST_WORD on are ordinary words to every model

# The largest value of a setting. Widths of hidden states are one number, so that towers, projectors and LLMs fit.
_SIZES = {
    WIDTH: """hidden_size embed_dim d_model out_hidden_size text_hidden_size vision_hidden_size encoder_hidden_size
        projection_dim projection_hidden_dim projection_hidden_size projector_hidden_size projector_input_dim
        projector_output_dim word_embed_proj_dim image_text_hidden_size pooler_output_size adapter_in_dim
        adapter_out_dim adapter_input_size patch_embed_hidden_size image_token_embed_dim vision_output_dim
        decoder_hidden_size q_lora_rank downsample_hidden_size moe_hidden_size hidden_dim output_channels
        codebook_dim""",
    4 * WIDTH: "*intermediate_size intermediate_size_mlp *ffn_dim mlp_dim d_ff share_expert_dim",
    HEAD: """head_dim swa_head_dim d_kv resampler_dim_head resampler_head_dim v_head_dim index_head_dim linear_head_dim
        linear_key_head_dim linear_value_head_dim mamba_head_dim qk_head_dim global_head_dim kv_lora_rank
        query_pre_attn_scalar ssm_state_size moe_latent_size laurel_rank hidden_size_per_layer_input
        d_rel hc_lowrank""",
    32: "base_channels latent_channels",
    30: "image_token_offset",
    38: "audio_token_offset",  # where the eight codes of pictures end
    8: """pos_emb_height pos_emb_width posemb_grid_size qk_rope_head_dim qk_nope_head_dim rotary_dim ple_embed_dim
        conf_attention_chunk_size codebook_size""",
    4: """*attention_heads num_heads n_heads resampler_heads resampler_n_heads index_n_heads linear_num_heads
        linear_num_value_heads mamba_num_heads n_routed_experts num_experts num_local_experts moe_num_experts
        num_query_tokens resampler_n_latents resampler_num_latents n_groups latent_query_num num_groups""",
    2: """num_experts_per_tok moe_k moe_topk linear_num_key_heads resampler_depth num_global_layers decoder_layers
        encoder_layers num_decoder_layers""",
    1: "n_group topk_group n_shared_experts moe_num_shared_experts",
    1024: "max_position_embeddings original_max_position_embeddings",
}
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names.split()}
_SUFFIXES = {name[1:]: size for name, size in _SIZE_OF.items() if name.startswith("*")}
_VOCABULARIES = ("vocab_size", "mel_vocab_size", "vocab_size_per_layer_input")
_DEPTHS = ("num_hidden_layers", "depth", "num_layers", "n_layers", "layers")
_LEFT_OUT = ("id2label", "label2id", "architectures", "transformers_version", "quantization_config", "torch_dtype")
_LAYER_NUMBERS = re.compile(
    r"\w*indexes|\w*_idxs|moe_layers|rope_scaling_layers|\w+_layer_ids|cross_attention_layers|mlp_only_layers"
    r"|kv_source_layers"
)
_TOKEN = re.compile(r"\w+_(id|index)|visual_indicator_token_ids")


def tiny_config(config: Any) -> Any:
    """A small config of the same class: the first layer of each kind stays, and all special tokens.

    Raises:  whatever the class raises where it can't be this small
    """
    plain = config.to_dict()
    return type(config)(**_shrunk(plain, _small_ids(plain)))


def _shrunk(plain: dict[str, Any], ids: dict[int, int], rotary: float = 1.0) -> dict[str, Any]:
    """One part of a config; rotary: the share of a head that has rotary embeddings."""
    own = _SIZE_OF["qk_rope_head_dim"] / HEAD if plain.get("qk_rope_head_dim") else rotary
    rotary = plain.get("partial_rotary_factor") or own
    depth = next((int(plain[name]) for name in _DEPTHS if isinstance(plain.get(name), int)), 0)
    part = _Part(plain=plain, ids=ids, depth=depth, layers=_layers(plain, depth), rotary=rotary)
    return {name: part.small(name, value) for name, value in plain.items() if name not in _LEFT_OUT}


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A config or a part of one.

    plain: its settings.   ids: each special token's id -> its small one.   depth: number of its layers.
    layers: indices of those that stay.   rotary: the share of a head that has rotary embeddings.
    """

    plain: dict[str, Any]
    ids: dict[int, int]
    depth: int
    layers: list[int]
    rotary: float

    def small(self, name: str, value: Any) -> Any:
        """The small value of a setting."""
        if _is_per_layer(value, self.depth):
            parts = {int(layer): part for layer, part in value.items()}
            return {i: _shrunk(parts[layer], self.ids) for i, layer in enumerate(self.layers) if layer in parts}
        if isinstance(value, dict):
            named = all(isinstance(key, str) for key in value)
            return _shrunk(value, self.ids, self.rotary) if named else value
        if value is None or isinstance(value, bool) or name == "model_type":
            return value
        return self._list(name, list(value)) if isinstance(value, list | tuple) else self._scalar(name, value)

    def _scalar(self, name: str, value: Any) -> Any:
        plain = self.plain
        if name in _DEPTHS:
            return len(self.layers)
        if name in _VOCABULARIES:
            return VOCABULARY
        if _TOKEN.fullmatch(name):
            return self.ids.get(value, value)
        if name == "vision_feature_layer":
            return _within(value)
        if name.endswith("num_key_value_heads"):
            heads = plain.get("num_attention_heads")
            return HEADS if isinstance(heads, int) and value >= heads else min(value, 2)
        if name == "head_dim" and value == plain.get("qk_rope_head_dim"):
            return _SIZE_OF["qk_rope_head_dim"]
        if name == "out_hidden_size" and "vision_config" in plain:  # of several of the tower's patches, side by side
            return WIDTH * max(1, value // int(plain["vision_config"].get("hidden_size", value)))
        if name == "partial_rotary_factor":
            return max(0.5, value)
        if name == "first_k_dense_replace":
            return min(1, value)
        if name == "image_size":
            return 4 * _patch(plain)
        if name == "mm_tokens_per_image":
            return 4
        if name == "num_position_embeddings" and plain.get("image_size") is not None:
            return 16
        size = _SIZE_OF.get(name) or next((size for end, size in _SUFFIXES.items() if name.endswith(end)), None)
        return min(size, value) if isinstance(value, int) and size is not None else value

    def _list(self, name: str, value: list[Any]) -> list[Any]:
        if _TOKEN.fullmatch(name):
            return [self.ids.get(item, item) for item in value]
        if _LAYER_NUMBERS.fullmatch(name) and self.layers:
            return [i for i, layer in enumerate(self.layers) if layer in value]
        if self.depth and len(value) == self.depth:
            return [value[layer] for layer in self.layers]
        if name == "vision_feature_layer":
            return [_within(layer) for layer in value]
        if name == "mrope_section":
            pairs = int(HEAD * max(0.5, self.rotary)) // 2
            return [pairs - 2 * (pairs // 4), pairs // 4, pairs // 4]
        if name == "image_grid_pinpoints":
            vision = self.plain.get("vision_config") or {}
            side = first_number(vision.get("image_size"), 336)
            return [[4 * _patch(vision) * edge // side for edge in pair] for pair in value]
        if name == "image_size":
            return [4 * _patch(self.plain)] * len(value)
        return [WIDTH] * len(value) if name == "downsample_channels" else value


def _patch(plain: dict[str, Any]) -> int:
    """Side of a tower's patch in pixels."""
    return first_number(plain.get("patch_size"), 14)


def first_number(value: Any, default: int) -> int:
    """A setting, or the first value of a list; the default where there is none."""
    value = value[0] if isinstance(value, list | tuple) else value
    return int(value) if value else default


def _within(layer: int) -> int:
    """A layer's number, from either end, in a tower of two."""
    return max(layer, -2) if layer < 0 else min(layer, 1)


def _is_per_layer(value: Any, depth: int) -> bool:
    """Whether a setting is a dict of settings by layers' numbers."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(str(key).isdigit() and int(key) < depth and isinstance(part, dict) for key, part in value.items())
    )


def _layers(plain: dict[str, Any], depth: int) -> list[int]:
    """Indices of the layers that stay: the first of each kind, at least two."""
    lists = {n: v for n, v in plain.items() if isinstance(v, list | tuple)}
    numbers = [v for n, v in lists.items() if _LAYER_NUMBERS.fullmatch(n)]
    numbers += [[int(key) for key in v] for v in plain.values() if _is_per_layer(v, depth)]
    each = [v for n, v in lists.items() if len(v) == depth and not _LAYER_NUMBERS.fullmatch(n)]
    dense = plain.get("first_k_dense_replace") or 0
    kinds: dict[Any, int] = {}
    for layer in range(depth):
        kind = (*(repr(v[layer]) for v in each), *(layer in v for v in numbers), layer < dense)
        kinds.setdefault(kind, layer)
    more = [layer for layer in range(depth) if layer not in kinds.values()]
    return sorted([*kinds.values(), *more[: max(0, 2 - len(kinds))]])


def _small_ids(plain: dict[str, Any]) -> dict[int, int]:
    """Each special token's id -> a small one."""
    small: dict[int, int] = {}
    for name, own in (("eos_token_id", END), ("pad_token_id", PAD), ("bos_token_id", BEGIN)):
        value = next((value for found, value in _settings(plain) if found == name and value is not None), None)
        small = {**dict.fromkeys(_ids(value), own), **small}
    tokens = {one for name, value in _settings(plain) if _TOKEN.fullmatch(name) for one in _ids(value)}
    return {**small, **dict(zip(sorted(tokens - small.keys()), range(FIRST_SPECIAL, FIRST_WORD), strict=False))}


def _settings(plain: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every setting of a config and of its parts, its own first."""
    for name, value in plain.items():
        if not isinstance(value, dict):
            yield name, value
    for name, value in plain.items():
        if isinstance(value, dict) and name not in _LEFT_OUT and all(isinstance(key, str) for key in value):
            yield from _settings(value)


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [one for one in values if isinstance(one, int) and not isinstance(one, bool) and one >= 0]
