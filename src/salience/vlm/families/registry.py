"""Model families in one static table, and the adapter of a model."""

from __future__ import annotations

import importlib
from typing import Any

from salience.core.transformers_names import check_release, require_arguments
from salience.vlm.families.base import Adapter

#: `config.model_type` -> "module:class". A new family is one file in this folder and one line here.
FAMILIES = {
    "*": "salience.vlm.families.fallback:FallbackAdapter",  # every other type
    "gemma3": "salience.vlm.families.gemma3:Gemma3Adapter",
    "glm46v": "salience.vlm.families.glm4v:Glm4vAdapter",
    "glm_ocr": "salience.vlm.families.glm4v:GlmOcrAdapter",
    "glmga": "salience.vlm.families.glm4v:Glm4vAdapter",
    "glm4v": "salience.vlm.families.glm4v:Glm4vAdapter",
    "glm4v_moe": "salience.vlm.families.glm4v:Glm4vAdapter",
    "idefics3": "salience.vlm.families.idefics3:Idefics3Adapter",
    "internvl": "salience.vlm.families.internvl:InternVLAdapter",
    "llama4": "salience.vlm.families.llama4:Llama4Adapter",
    "llava": "salience.vlm.families.llava:LlavaAdapter",
    "llava_next": "salience.vlm.families.llava_next:LlavaNextAdapter",
    "llava_onevision": "salience.vlm.families.llava_onevision:LlavaOnevisionAdapter",
    "ovis2": "salience.vlm.families.ovis2:Ovis2Adapter",
    "paligemma": "salience.vlm.families.paligemma:PaliGemmaAdapter",
    "qwen2_5_vl": "salience.vlm.families.qwen2_5_vl:Qwen25VLAdapter",
    "qwen2_vl": "salience.vlm.families.qwen2_vl:Qwen2VLAdapter",
    "qwen3_5": "salience.vlm.families.qwen3_5:Qwen35Adapter",
    "qwen3_5_moe": "salience.vlm.families.qwen3_5:Qwen35Adapter",
    "qwen3_vl": "salience.vlm.families.qwen3_vl:Qwen3VLAdapter",
    "qwen3_vl_moe": "salience.vlm.families.qwen3_vl:Qwen3VLAdapter",
    "smolvlm": "salience.vlm.families.idefics3:Idefics3Adapter",
    "minicpmv4_7": "salience.vlm.families.fallback:AxesFallbackAdapter",
    "paddleocr_vl": "salience.vlm.families.fallback:AxesFallbackAdapter",
    "cosmos3_edge": "salience.vlm.families.fallback:AxesFallbackAdapter",
    "vila": "salience.vlm.families.vila:VilaAdapter",  # LLaVA's classes with its projector
}


def adapter_for(model: Any) -> Adapter:
    """The adapter of a transformers model: its family's, or the fallback's if the model's signature fits.

    The adapter is for the model inside a wrapper of PEFT or torch.compile, because the wrapper calls that model.

    Raises:  ValueError when the model's family is unknown, with the known ones or with what the model lacks
    """
    model = unwrapped(model)
    kind = getattr(getattr(model, "config", None), "model_type", None)
    kind = getattr(getattr(getattr(model, "model", None), "multi_modal_projector", None), "family", kind)
    if kind not in FAMILIES and hasattr(getattr(model, "base_model", None), "get_image_features"):
        kind = "*"
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES)[1:])
        raise ValueError(
            f"model must be of a known family ({known}) or have get_image_features, unlike {type(model).__name__}"
            + (f" of type {kind!r}." if kind else ".")
        )
    module, _, name = FAMILIES[kind].partition(":")
    check_release()
    adapter: Adapter = getattr(importlib.import_module(module), name)(model)
    require_arguments(model.forward, ("input_ids", "mm_encoder_outputs"), type(model).__name__)
    return adapter


def unwrapped(model: Any) -> Any:
    """The transformers model inside the wrappers of PEFT and torch.compile.

    Raises:  ValueError when PEFT adds virtual tokens before the prompt, which can't be told from its own tokens
    """
    while True:
        if "_orig_mod" in getattr(model, "_modules", {}):  # torch.compile(model)
            model = model._orig_mod
        elif hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            for name, config in model.peft_config.items():
                if config.is_prompt_learning:
                    raise ValueError(
                        f"the PEFT adapter {name!r} must not learn a prompt, as {config.peft_type.value} does: its "
                        "virtual tokens shift the prompt's columns."
                    )
            model = model.get_base_model()
        else:
            return model
