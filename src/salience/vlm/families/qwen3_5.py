"""Qwen3.5: Qwen2-VL's pictures and positions before a language model with linear attention in most layers."""

from __future__ import annotations

from salience.vlm.families.qwen2_vl import Qwen2VLAdapter


class Qwen35Adapter(Qwen2VLAdapter):
    """Stages of one `Qwen3_5ForConditionalGeneration`; features as Qwen2-VL's."""

    class_names = "Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration"
