"""PaliGemma: one SigLIP grid a picture, a linear projector, a prefix that attends both ways."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from salience.core.types import VisualGrid
from salience.vlm.families.stock import StockAdapter, as_one_tensor, need_pictures
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import ProjectedAttention, pooled_keys, pooled_shares
from salience.vlm.tower.tower_merging import Schedule, merged_tokens


class PaliGemmaAdapter(StockAdapter):
    """Stages of one `PaliGemmaForConditionalGeneration`, the model unmodified.

    Its forward counts positions from 1, its generate from 0 and adds the 1 itself; `token_type_ids` say what attends
    both ways and are cut along.
    """

    class_name = "PaliGemmaForConditionalGeneration"

    def _tower(self) -> Any:
        return self.model.model.vision_tower

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.hidden_size)

    @property
    def n_tokens(self) -> int:
        vision = self.config.vision_config
        return (int(vision.image_size) // int(vision.patch_size)) ** 2

    @property
    def first_position(self) -> int:
        return 1

    @property
    def no_merging(self) -> str:
        return ""

    @property
    def merging_layers(self) -> int:
        return int(self.config.vision_config.num_hidden_layers)

    def encode_merged(self, schedule: Schedule, pixel_values: Tensor, **options: Any) -> EncodedViews:
        need_pictures(pixel_values)
        merged = merged_tokens(
            self.tower, pixel_values, layers=self.merging_layers, prefix=0, schedule=schedule, normed=True
        )
        features = merged.spread()
        side = int(features.shape[1] ** 0.5)
        return EncodedViews(
            views=features.unbind(),
            grids=[VisualGrid(rows=side, columns=side)] * features.shape[0],
            pixels=pixel_values.unbind(),
            project=self.project,
            project_all=lambda: self.project(features).unbind(),
            left=merged.selections(),
            stacked=features,
        )

    def check(self, given: dict[str, Any]) -> None:
        need_pictures(given["pixel_values"])

    def read(self, output: Any, given: dict[str, Any], attention: ProjectedAttention) -> EncodedViews:
        features = self.in_tokens(output.last_hidden_state)
        side = int(features.shape[1] ** 0.5)
        return EncodedViews(
            views=features.unbind(),
            grids=[VisualGrid(rows=side, columns=side)] * features.shape[0],
            pixels=given["pixel_values"].unbind(),
            project=self.project,
            project_all=lambda: output.pooler_output.unbind(),
            attend=lambda: pooled_shares(attention(), self.patches_a_side),
            attend_keys=lambda: pooled_keys(attention.keys(), self.patches_a_side),
        )

    @property
    def patches_a_side(self) -> int:
        """How many of the tower's patches a side make up a token."""
        return 1

    def in_tokens(self, states: Tensor) -> Tensor:
        """The tower's output (images, patches, d) as what the projector takes row by row, (images, n, d)."""
        return states

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.model.model.multi_modal_projector(features)
        return projected

    def as_forward_reads(self, options: dict[str, Any]) -> dict[str, Any]:
        return as_one_tensor(options)
