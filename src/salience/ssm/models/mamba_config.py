"""What a Mamba language model is, and how the two published layouts' config.json say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from salience.ssm.layers.s6 import resolve_rank, whole_number


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """The shape of a Mamba language model.

    vocab_size: token ids that mean something; the embedding has rows up to the next multiple of `pad_vocab_multiple`.
    d_model, n_layers, d_state, d_conv, expand, dt_rank, dt_min, dt_max, dt_floor, bias, conv_bias: each layer's, see
    `salience.Mamba`.   norm_eps: of the RMS norms.   residual_in_fp32: between the layers.   tie_embeddings: one matrix
    for the embedding and the head.
    """

    vocab_size: int
    d_model: int = 768
    n_layers: int = 24
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | str = "auto"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_floor: float = 1e-4
    bias: bool = False
    conv_bias: bool = True
    norm_eps: float = 1e-5
    residual_in_fp32: bool = True
    tie_embeddings: bool = True
    pad_vocab_multiple: int = 1

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "d_state", "expand", "pad_vocab_multiple"):
            whole_number(name, getattr(self, name))
        object.__setattr__(self, "dt_rank", resolve_rank(self.dt_rank, self.d_model))

    @property
    def rows(self) -> int:
        """Rows of the embedding and of the head."""
        return -(-self.vocab_size // self.pad_vocab_multiple) * self.pad_vocab_multiple


_HF = {
    "vocab_size": "vocab_size", "hidden_size": "d_model", "num_hidden_layers": "n_layers", "state_size": "d_state",
    "conv_kernel": "d_conv", "expand": "expand", "time_step_rank": "dt_rank", "time_step_min": "dt_min",
    "time_step_max": "dt_max", "time_step_floor": "dt_floor", "use_bias": "bias", "use_conv_bias": "conv_bias",
    "layer_norm_epsilon": "norm_eps", "residual_in_fp32": "residual_in_fp32", "tie_word_embeddings": "tie_embeddings",
}  # fmt: skip
_HF_DEFAULTS = {"vocab_size": 50280, "n_layers": 32}  # where transformers' differ from ours
_ORIGINAL = {
    "vocab_size": "vocab_size", "d_model": "d_model", "n_layer": "n_layers", "residual_in_fp32": "residual_in_fp32",
    "tie_embeddings": "tie_embeddings", "pad_vocab_size_multiple": "pad_vocab_multiple",
}  # fmt: skip
_ORIGINAL_DEFAULTS = {"vocab_size": 50277, "d_model": 2560, "n_layers": 64, "pad_vocab_multiple": 8}
_SSM = {
    "d_state": "d_state", "d_conv": "d_conv", "expand": "expand", "dt_rank": "dt_rank", "dt_min": "dt_min",
    "dt_max": "dt_max", "dt_init_floor": "dt_floor", "bias": "bias", "conv_bias": "conv_bias",
}  # fmt: skip

# How a model is started, run or told about, but not what it computes from its weights. The -hf files on the hub also
# repeat some of the original's fields beside their own.
_IDLE = frozenset(
    "_name_or_path _attn_implementation architectures auto_map bos_token_id eos_token_id pad_token_id "
    "chunk_size_feed_forward d_inner d_model dtype fused_add_norm id2label initializer_range intermediate_size "
    "is_encoder_decoder label2id model_type n_layer output_attentions output_hidden_states pad_vocab_size_multiple "
    "problem_type rescale_prenorm_residual return_dict ssm_cfg time_step_init_scheme time_step_scale torch_dtype "
    "transformers_version use_associative_scan use_cache use_mambapy".split()
)
_SSM_IDLE = frozenset("dt_init dt_scale use_fast_path layer".split())
# What other values of these would mean, nothing here computes.
_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "model_type": ("mamba", None),
    "rms_norm": (True,),
    "d_intermediate": (0, None),
    "attn_layer_idx": ([], None),
    "attn_cfg": ({}, None),
    "layer": ("Mamba1", None),
}


def read_config(config: Mapping[str, Any], where: str) -> MambaConfig:
    """A published config.json -> ours.

    Raises:  ValueError, naming `where`, for a field nobody knows or a value that means another model
    """
    if "hidden_size" in config or "model_type" in config:  # the -hf layout
        _check(config, {*_HF, *_IDLE}, where)
        found = _HF_DEFAULTS | {ours: config[theirs] for theirs, ours in _HF.items() if theirs in config}
    else:
        inner = config.get("ssm_cfg") or {}
        _check(inner, {*_SSM, *_SSM_IDLE}, f"ssm_cfg in {where}")
        _check(config, {*_ORIGINAL, "ssm_cfg", "fused_add_norm"}, where)
        found = _ORIGINAL_DEFAULTS | {ours: config[theirs] for theirs, ours in _ORIGINAL.items() if theirs in config}
        found |= {ours: inner[theirs] for theirs, ours in _SSM.items() if theirs in inner}
    try:
        return MambaConfig(**found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} describes no Mamba: {error}") from error


def write_config(config: MambaConfig, layout: str) -> dict[str, Any]:
    """Ours -> a published layout's config.json.

    Raises:  ValueError where the layout cannot say it
    """
    if layout == "hf":
        told = {theirs: getattr(config, ours) for theirs, ours in _HF.items()}
        told |= {"vocab_size": config.rows, "intermediate_size": config.expand * config.d_model}
        return {"architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_act": "silu", **told}
    if config.norm_eps != 1e-5:
        raise ValueError(f'layout must be "hf" for a norm_eps of {config.norm_eps}: "original" knows 1e-05 only.')
    plain = MambaConfig(vocab_size=1, d_model=config.d_model)
    inner = {theirs: getattr(config, ours) for theirs, ours in _SSM.items()}
    inner = {theirs: value for theirs, value in inner.items() if value != getattr(plain, _SSM[theirs])}
    told = {theirs: getattr(config, ours) for theirs, ours in _ORIGINAL.items()}
    return {**told, "ssm_cfg": inner, "rms_norm": True, "fused_add_norm": True}


def _check(config: Mapping[str, Any], known: set[str], where: str) -> None:
    if config.get("model_type") == "mamba2" or config.get("layer") == "Mamba2":
        raise ValueError(f"{where} describes a Mamba-2, another recurrence: MambaLM runs S6, Mamba-1's selective scan.")
    for name, allowed in _FIXED.items():  # first: another model's name says more than its fields
        if name in config and config[name] not in allowed:
            raise ValueError(f"{where} says {name} is {config[name]!r}, and MambaLM runs {allowed[0]!r} only.")
    unknown = sorted(set(config) - known - set(_FIXED))
    if unknown:
        raise ValueError(f"{where} has fields this version does not know: {', '.join(unknown)}.")
