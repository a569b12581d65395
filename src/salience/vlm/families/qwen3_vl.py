"""Qwen3-VL: Qwen2-VL's pictures and positions, and visual tokens added to the language model's first layers as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from salience.vlm.families.base import of_kind
from salience.vlm.families.qwen2_vl import Qwen2VLAdapter


class Qwen3VLAdapter(Qwen2VLAdapter):
    """Stages of one `Qwen3VLForConditionalGeneration`; the tokens for the first layers ("deepstack") are cut along."""

    class_name = "Qwen3VLForConditionalGeneration"

    @property
    def width(self) -> int:
        return int(self.config.vision_config.hidden_size)

    def encoder_outputs(
        self, projected: Sequence[Tensor], deepstack: Sequence[Sequence[Tensor]] = (), kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        kinds = kinds or ["image"] * len(projected)
        return {
            kind: BaseModelOutputWithDeepstackFeatures(
                pooler_output=of_kind(projected, kinds, kind),
                deepstack_features=[of_kind(layer, kinds, kind) for layer in deepstack],
            )
            for kind in dict.fromkeys(kinds)
        }


class Qwen3VLMoeAdapter(Qwen3VLAdapter):
    """Stages of one `Qwen3VLMoeForConditionalGeneration`."""

    class_name = "Qwen3VLMoeForConditionalGeneration"
