"""Qwen2.5-VL: Qwen2-VL with attention in windows; the tower's output is ordered by window."""

from __future__ import annotations

from torch import Tensor

from salience.vlm.families.qwen2_vl import Qwen2VLAdapter


class Qwen25VLAdapter(Qwen2VLAdapter):
    """Stages of one `Qwen2_5_VLForConditionalGeneration`; features as Qwen2-VL's, in raster order."""

    class_names = "Qwen2_5_VLForConditionalGeneration"

    def in_order(self, features: Tensor, grid: Tensor) -> Tensor:
        from transformers.vision_utils import get_vision_window_index

        vision = self.config.vision_config
        index, _ = get_vision_window_index(
            grid,
            spatial_merge_size=self.merge,
            window_size=int(vision.window_size),
            patch_size=int(vision.patch_size),
        )
        return features[index.argsort().to(features.device)]
