"""Qwen3-VL: Qwen2-VL's pictures and positions, and visual tokens added to the language model's first layers as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from salience.families.qwen2_vl import Qwen2VLAdapter


class Qwen3VLAdapter(Qwen2VLAdapter):
    """Stages of one `Qwen3VLForConditionalGeneration`; the tokens for the first layers ("deepstack") are cut along."""

    class_name = "Qwen3VLForConditionalGeneration"

    @property
    def width(self) -> int:
        return int(self.config.vision_config.hidden_size)

    def encoder_outputs(
        self, projected: Sequence[Tensor], deepstack: Sequence[Sequence[Tensor]] = ()
    ) -> dict[str, Any]:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        layers = [list(layer) for layer in deepstack]
        return {"image": BaseModelOutputWithDeepstackFeatures(pooler_output=list(projected), deepstack_features=layers)}
