"""PaliGemma: one SigLIP grid a picture, a linear projector, a prefix that attends in both directions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from salience.vlm.families.base import need_pictures
from salience.vlm.families.image_features import ImageFeaturesAdapter
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_merging import Schedule, merged_tokens


class PaliGemmaAdapter(ImageFeaturesAdapter):
    """Stages of one `PaliGemmaForConditionalGeneration`, the model unmodified.

    Its forward counts positions from 1. Its generate counts from 0 and adds the 1 itself. `token_type_ids` mark the
    tokens that attend in both directions; they are cut with the prompt.
    """

    class_names = "PaliGemmaForConditionalGeneration"
    no_merging = ""
    first_position = 1
    read_as_tensor = "image"

    @property
    def merging_layers(self) -> int:
        return int(self.config.vision_config.num_hidden_layers)

    def encode_merged(self, schedule: Schedule, pixel_values: Tensor, **options: Any) -> EncodedViews:
        need_pictures(pixel_values)
        merged = merged_tokens(
            self.tower, pixel_values, layers=self.merging_layers, prefix=0, schedule=schedule, normed=True
        )
        return self.equal_views(merged.spread(), pixel_values.unbind(), left=merged.selections())
