"""LLaVA-OneVision: LLaVA-NeXT's tiles, large pictures scaled down after the projector, several pictures left whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from salience.families.llava_next import LlavaNextAdapter


class LlavaOnevisionAdapter(LlavaNextAdapter):
    """Stages of one `LlavaOnevisionForConditionalGeneration`, the model unmodified.

    Where the model scales a large picture down, it interpolates projected tokens; a method then sees the tower's
    features interpolated in the same way, and a kept token is the model's own.
    """

    class_name = "LlavaOnevisionForConditionalGeneration"

    def tile_counts(self, image_sizes: Any, options: dict[str, Any]) -> list[int]:
        counts = super().tile_counts(image_sizes, options)
        together = options.get("batch_num_images")
        if together is None:
            return counts
        alone = [int(n) == 1 for n in together for _ in range(int(n))]
        return [count if cut else 1 for count, cut in zip(counts, alone, strict=True)]

    def pack(self, tiles: Sequence[Tensor], image_sizes: Any, newline: Tensor, options: dict[str, Any]) -> list[Tensor]:
        ratio = options.get("vision_aspect_ratio") or self.config.vision_aspect_ratio
        packed, _ = self.model.model.pack_image_features(
            list(tiles), image_sizes, image_newline=newline, vision_aspect_ratio=ratio
        )
        return list(packed)
