"""GLM-4.1V, GLM-4.5V and GLM-4.6V: Qwen2-VL's pictures and positions, four patches put together by a convolution."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from salience.vlm.families.base import Adapter
from salience.vlm.families.qwen2_vl import Qwen2VLAdapter
from salience.vlm.tower.encoded_views import EncodedViews


class Glm4vAdapter(Qwen2VLAdapter):
    """Stages of one `Glm4vForConditionalGeneration`, the model unmodified.

    Features are what the merger reads, (n, d_llm), four patches put together. Videos share the pictures' placeholder
    there, so that their tokens can't be told from a picture's: they are refused.
    """

    class_name = "Glm4vForConditionalGeneration"

    @property
    def width(self) -> int:
        return int(self.config.vision_config.hidden_size)

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.out_hidden_size)

    @property
    def token_ids(self) -> dict[str, int]:
        return {"image": self.image_token_id}

    @property
    def joins_rows(self) -> bool:
        return True  # its own generate repeats pictures A, B of a prompt as A, A, B, B for beams: not as A, B, A, B

    def encode_video(self, pixel_values_videos: Tensor, **options: object) -> EncodedViews:
        return Adapter.encode_video(self, pixel_values_videos, **options)

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.tower.merger(features.reshape(-1, self.d_features))
        return projected.reshape(*features.shape[:-1], -1)


class Glm46VAdapter(Glm4vAdapter):
    """Stages of one `Glm46VForConditionalGeneration`."""

    class_name = "Glm46VForConditionalGeneration"


class Glm4vMoeAdapter(Glm4vAdapter):
    """Stages of one `Glm4vMoeForConditionalGeneration`."""

    class_name = "Glm4vMoeForConditionalGeneration"


class GlmOcrAdapter(Glm4vAdapter):
    """Stages of one `GlmOcrForConditionalGeneration`; its tower norms queries and keys, which are then not read."""

    class_name = "GlmOcrForConditionalGeneration"

    @property
    def tower_attention(self) -> Literal["cls", "received"] | None:
        return None
