"""Qwen3-VL: Qwen2-VL's pictures and positions; visual tokens are added in several layers of the LLM as well."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from salience.vlm.families.qwen2_vl import Qwen2VLAdapter


class Qwen3VLAdapter(Qwen2VLAdapter):
    """Stages of one `Qwen3VLForConditionalGeneration`; the tokens for its first layers ("deepstack") are pruned too."""

    class_names = "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration"

    def encoder_output(self, projected: list[Tensor], deepstack: list[list[Tensor]]) -> Any:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        return BaseModelOutputWithDeepstackFeatures(pooler_output=projected, deepstack_features=deepstack)
