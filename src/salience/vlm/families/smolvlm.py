"""SmolVLM: Idefics3's tiles and shuffled patches under other names."""

from __future__ import annotations

from salience.vlm.families.idefics3 import Idefics3Adapter


class SmolVLMAdapter(Idefics3Adapter):
    """Stages of one `SmolVLMForConditionalGeneration`; its video frames come as pictures, each with its own budget."""

    class_name = "SmolVLMForConditionalGeneration"
