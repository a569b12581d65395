"""GLM-4.1V, GLM-4.5V and GLM-4.6V: Qwen2-VL's pictures and positions; a convolution makes a token of four patches."""

from __future__ import annotations

from torch import Tensor

from salience.vlm.families.base import Adapter
from salience.vlm.families.qwen2_vl import Qwen2VLAdapter
from salience.vlm.tower.encoded_views import EncodedViews


class Glm4vAdapter(Qwen2VLAdapter):
    """Stages of one GLM-4.1V, GLM-4.5V or GLM-4.6V, the model unmodified.

    Features are what the merger reads, (n, d_llm), one row for four patches. Videos are refused: they share the
    pictures' placeholder, so that their tokens can't be told from a picture's.
    """

    class_names = "Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration Glm46VForConditionalGeneration"
    has_videos = False
    joins_rows = True  # for beams its generate repeats a prompt's pictures A, B as A, A, B, B and not as A, B, A, B

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.out_hidden_size)

    def encode_video(self, pixel_values_videos: Tensor, **options: object) -> EncodedViews:
        return Adapter.encode_video(self, pixel_values_videos, **options)

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.tower.merger(features.reshape(-1, self.d_features))
        return projected.reshape(*features.shape[:-1], -1)


class GlmOcrAdapter(Glm4vAdapter):
    """Stages of one `GlmOcrForConditionalGeneration`; its tower normalises queries and keys, so they are not read."""

    class_names = "GlmOcrForConditionalGeneration"
    tower_attention = None
