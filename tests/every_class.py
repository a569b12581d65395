"""A tiny random model of any class of transformers' image-text-to-text mapping, and the masked oracle.

Every size comes from the class's own config, made small by `tiny_config`; `SETTINGS` fills in what a
default config leaves open.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from salience.vlm.families import adapter_for
from salience.vlm.tiny_models.tiny_calls import MARKS, tiny_model
from salience.vlm.tiny_models.tiny_calls import tiny_batch as tiny_batch
from salience.vlm.tiny_models.tiny_config import tiny_config


# What a default config lacks for its model to be built or to read a picture: model_type -> nested settings.
def _axes(*section: int, **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(section), **more}
    return {"text_config": {"rope_parameters": rope}}


_BPE = {
    "<image>": 8, "<|extra_200|>": 9, **{f"IMGIMG{'ABCDEFGHIJ'[i]}Z": 20 + i for i in range(10)},
    **{f"<|visual token {i:06}|>": 30 + i for i in range(10)},
}  # fmt: skip

SETTINGS: Mapping[str, dict[str, Any]] = {
    "qwen2_vl": _axes(16, 24, 24), "qwen2_5_vl": _axes(16, 24, 24), "qwen2_5_omni_thinker": _axes(16, 24, 24),
    "qwen3_omni_moe_thinker": _axes(24, 20, 20), "paddleocr_vl": _axes(16, 24, 24),
    "glm4v": _axes(8, 12, 12, partial_rotary_factor=0.5), "glm4v_moe": _axes(8, 12, 12, partial_rotary_factor=0.5),
    "glm46v": _axes(8, 12, 12, partial_rotary_factor=0.5), "glmga": _axes(8, 12, 12, partial_rotary_factor=0.5),
    "glm_ocr": _axes(16, 24, 24), "ernie4_5_vl_moe": _axes(22, 22, 20),
    "hunyuan_vl": {"text_config": {"head_dim": 128, **_axes(16, 24, 24)["text_config"]}},
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "chameleon": {"vocabulary_map": _BPE}, "emu3": {"vocabulary_map": _BPE},
    "gemma4": {"vision_config": {"model_type": "gemma4_vision"}},
    "gemma4_unified": {"vision_config": {"model_type": "gemma4_unified_vision"}},
    "cohere_compass": {"text_config": {
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8, "num_hidden_layers": 32,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [24, 20, 20]},
            "full_attention": None,
        },
    }},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense"] + ["sparse"] * 31, "num_experts_per_tok": 6}},
    "qwen4_exp": {"text_config": {
        "indexer_n_heads": 8, "indexer_kv_heads": 1, "indexer_head_dim": 128, "indexer_budget": 64,
        "indexer_compress_ratio": 4, "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25},
    }},
    "diffusion_gemma": {"text_config": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 704}},
    "lfm2_vl": {"text_config": {"full_attn_idxs": [2, 5, 8, 10, 12, 14]}},
    "step3p7": {"text_config": {"sliding_window": 512}},
    "apertus1p5": {  # its codes are rows of the vocabulary, the picture's before the sound's
        "image_token_offset": 100, "audio_token_offset": 120, "vision_config": {"codebook_size": 20},
        "audio_config": {"codebook_size": 20, "codebook_dim": 64, "hidden_size": 64},
    },
    "blip-2": {"image_token_index": 50265}, "instructblip": {"image_token_index": 32000},
    "granite4_vision": {
        "image_grid_pinpoints": [[224, 448], [448, 224], [448, 448]], "downsample_rate": "1/2",
        "deepstack_layer_map": [[-1, 0]], "spatial_target_layers": [1, 1, 1, 1],
    },
}  # fmt: skip


# What is changed once the config is small, for pictures of more than a token: model_type -> nested settings.
SMALL: Mapping[str, dict[str, Any]] = {
    "got_ocr2": {"vision_config": {"image_size": 256}}, "pp_chart2table": {"vision_config": {"image_size": 256}},
    "step3p7": {"vision_config": {"image_size": 112}},
    "chameleon": {"vq_config": {"num_embeddings": 10}, "image_token_id": 8},
    "emu3": {"vq_config": {"codebook_size": 10, "hidden_size": 128}, "image_token_id": 8},
    "unlimited_ocr": {"vision_config": {"sam_config": {"image_size": 256}}},
    "deepseek_ocr2": {"vision_config": {"sam_config": {"image_size": 256}}},
}  # fmt: skip


def _merged(plain: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        n: _merged(plain[n], v) if isinstance(plain.get(n), dict) and isinstance(v, dict) else v
        for n, v in more.items()
    }
    return {**plain, **nested}


def model_types() -> list[str]:
    """Every model type of the mapping, in its order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return list(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def class_of(model_type: str) -> Any:
    """The model class that AutoModelForImageTextToText chooses."""
    from transformers import AutoModelForImageTextToText
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found = AutoModelForImageTextToText._model_mapping[CONFIG_MAPPING[model_type]]
    return found[0] if isinstance(found, tuple) else found


def config_of(model_type: str) -> Any:
    """The class's default config and `SETTINGS`, of full size."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**SETTINGS.get(model_type, {}))


def build(model_type: str) -> Any:
    """A tiny random model; raises what transformers raises where it can't be built."""
    config = tiny_config(config_of(model_type))
    if model_type in SMALL:
        config = type(config)(**_merged(config.to_dict(), SMALL[model_type]))
    return tiny_model(class_of(model_type), config, is_small=True)


# -- the oracle ------------------------------------------------------------------------------------------------------


def counted(model: Any, given: Mapping[str, Any]) -> Tensor:
    """(B, T), or (3, B, T): the whole prompt's positions, 0 from the first token that is not padding."""
    mask, base = given["attention_mask"], model.base_model
    text = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
    if not hasattr(base, "get_rope_index"):
        return text
    accepted = inspect.signature(base.get_rope_index).parameters
    options = {name: given[name] for name in set(given) - {"input_ids", "attention_mask"} if name in accepted}
    axes, _ = base.get_rope_index(given["input_ids"], attention_mask=mask, **options)
    return axes


def _positions(model: Any, given: Mapping[str, Any], drop: Tensor, *, compact: bool) -> Tensor:
    """The positions `counted`, or those with the gaps closed."""
    positions = counted(model, given)
    return (positions - drop.cumsum(1)).clamp_min(0) if compact else positions


def gone(given: Mapping[str, Any], pruned: Any) -> Tensor:
    """(B, T) bool: the dropped columns, according to the trace."""
    stays = torch.zeros_like(given["input_ids"], dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    return ~stays & (given["attention_mask"] == 1)


@torch.no_grad()
def oracle_forward(model: Any, given: Mapping[str, Any], drop: Tensor, *, compact: bool = False) -> Tensor:
    """(B, T, V): the unpruned model on the whole sequence, with dropped tokens masked and positions unchanged."""
    mask = given["attention_mask"].masked_fill(drop, 0)
    options = {**given, "attention_mask": mask, "position_ids": _positions(model, given, drop, compact=compact)}
    logits: Tensor = model(**options, use_cache=False).logits
    return logits


@torch.no_grad()
def oracle_generate(
    model: Any, given: Mapping[str, Any], drop: Tensor, steps: int, never: list[int], *, compact: bool = False
) -> tuple[Tensor, Tensor]:
    """(B, steps) tokens and (B, steps, V) logits of greedy decoding by whole forwards: no cache, no `generate`."""
    now, positions, logits, said = dict(given), _positions(model, given, drop, compact=compact), [], []
    dropped = drop
    for _ in range(steps):
        mask = now["attention_mask"].masked_fill(dropped, 0)
        out = model(**{**now, "attention_mask": mask, "position_ids": positions}, use_cache=False).logits[:, -1]
        logits.append(out)
        allowed = out.clone()
        allowed[:, never] = float("-inf")
        token = allowed.argmax(-1, keepdim=True)
        said.append(token)
        now["input_ids"] = torch.cat([now["input_ids"], token], 1)
        now["attention_mask"] = torch.cat([now["attention_mask"], torch.ones_like(token)], 1)
        for name in MARKS:
            if name in now:
                suffix = model.config.model_type == "paligemma"  # its prompt attends both ways, what follows does not
                now[name] = torch.cat([now[name], torch.full_like(token, int(suffix))], 1)
        dropped = torch.cat([dropped, torch.zeros_like(token, dtype=torch.bool)], 1)
        last = positions.amax(-1, keepdim=True)  # of all axes of a row
        last = last.amax(0, keepdim=True).expand_as(last) if positions.dim() == 3 else last
        positions = torch.cat([positions, last + 1], -1)
    return torch.cat(said, 1), torch.stack(logits, 1)


# -- the sweep -------------------------------------------------------------------------------------------------------

# float32 keeps 24 bits, sums run over fewer terms in another order, and the weights are larger than a trained model's:
# relative to the largest logit. What a dropped token changes is a hundred times that, `blind` below sees to it.
TOLERANCE = 1e-4
STEPS = 3
WINDOW = 6  # columns, a fraction of the prompt


def with_window(model: Any) -> Any | None:
    """The model with sliding windows narrower than its prompt; None where no layer has one."""
    text = model.config.get_text_config()
    name = next((n for n in ("sliding_window", "attention_chunk_size") if getattr(text, n, None)), None)
    kinds = set(getattr(text, "layer_types", None) or ())
    if name is None or not any("sliding" in kind or "chunked" in kind for kind in kinds):
        return None
    for part in model.modules():
        for holder in (part, getattr(part, "config", None)):
            if isinstance(getattr(holder, name, None), int) and hasattr(part, "forward"):
                setattr(holder, name, WINDOW)
    return model


def specials(model: Any) -> list[int]:
    """Ids that a random model must not generate: placeholders would count as pictures, an end would stop it."""
    return [i for i in range(64) if i < int(model.config.get_text_config().vocab_size)]


def outcome(
    model: Any, given: dict[str, Any], method: Any, keep: float, *, inside: Any = None, compact: bool = False
) -> str:
    """ "works", "refused: " and the sentence, or what went wrong.

    inside: the context manager `InLLMOracle`, for a method that drops tokens inside the language model.
    """
    import salience

    never = specials(model)
    options = {
        "do_sample": False, "max_new_tokens": STEPS, "min_new_tokens": STEPS, "suppress_tokens": never,
        "return_dict_in_generate": True, "output_logits": True,
    }  # fmt: skip
    try:
        handle = salience.prune(model, method, keep=keep, positions="compact" if compact else "auto")
    except ValueError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"prune crashes: {type(error).__name__}: {str(error)[:150]}"
    with handle:
        try:
            with torch.no_grad():
                short = model(**given).logits
            said = model.generate(**given, **options)
        except Exception as error:
            return f"call crashes: {type(error).__name__}: {str(error)[:200]}"
    if all(image.kept.numel() == image.grid.n for image in handle.trace.images) == (keep < 1):
        return "drops nothing" if keep < 1 else "drops something of all"
    got = torch.stack(said.logits, 1)
    if inside is None:
        drop = gone(given, handle)
        full = oracle_forward(model, given, drop, compact=compact)
        tokens, logits = oracle_generate(model, given, drop, STEPS, never, compact=compact)
    else:
        with inside(model, given, handle), torch.no_grad():
            full = model(**given).logits
        with inside(model, given, handle):
            whole = model.generate(**given, **options)
        tokens, logits = whole.sequences[:, -STEPS:], torch.stack(whole.logits, 1)
    worst = 0.0
    for row, columns in enumerate(handle.trace.columns):
        real = (columns >= 0) & (given["attention_mask"][row, columns.clamp_min(0)] == 1)
        worst = max(worst, float((short[row][-len(columns) :][real] - full[row, columns[real]]).abs().max()))
    largest = float(full.abs().max())
    if not worst <= TOLERANCE * largest:
        return f"forward differs by {worst:.2g} of {largest:.2g}"
    worst, largest = float((got - logits).abs().max()), float(logits.abs().max())
    if not torch.equal(said.sequences[:, -STEPS:], tokens) or not worst <= TOLERANCE * largest:
        return f"generate differs by {worst:.2g} of {largest:.2g}"
    return "works"


def blind(model: Any, given: dict[str, Any]) -> bool:
    """Whether half of a picture may go without the logits of its last column showing it: nothing could be found."""
    token, ids = adapter_for(model).image_token_id, given["input_ids"]
    drop = (ids == token) & (torch.arange(ids.shape[1]) % 2 == 0)
    none = torch.zeros_like(drop)
    full, less = (oracle_forward(model, given, one)[:, -1] for one in (none, drop))
    return float((full - less).abs().max()) < 100 * TOLERANCE * float(full.abs().max())
