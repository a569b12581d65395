"""Idefics3 and SmolVLM: a sample's pictures in tiles of one size, patches shuffled together into tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from salience.core.types import VisualGrid
from salience.vlm.families.stock import StockAdapter
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import ProjectedAttention, pooled_keys, pooled_shares


class Idefics3Adapter(StockAdapter):
    """Stages of one `Idefics3ForConditionalGeneration`, the model unmodified.

    The model returns a sample's tiles in one piece. Each tile is a view with a budget of its own, so neither a picture
    nor a part of one is starved. Features are the shuffled patches, (n, C s s).
    """

    class_name = "Idefics3ForConditionalGeneration"

    def _tower(self) -> Any:
        return self.model.model.vision_model

    @property
    def language_model(self) -> nn.Module:
        module: nn.Module = self.model.model.text_model
        return module

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.hidden_size) * int(self.config.scale_factor) ** 2

    @property
    def side(self) -> int:
        """How many tokens a side a tile has."""
        vision = self.config.vision_config
        return int(vision.image_size) // int(vision.patch_size) // int(self.config.scale_factor)

    @property
    def no_merging(self) -> str:
        return "its patches are put together on their grid, behind the tower"

    @property
    def n_tokens(self) -> int:
        return self.side**2

    def check(self, given: dict[str, Any]) -> None:
        shape = tuple(given["pixel_values"].shape)
        if len(shape) != 5:
            raise ValueError(f"pixel_values must be (samples, tiles, 3, H, W), not of shape {shape}.")

    def read(self, output: Any, given: dict[str, Any], attention: ProjectedAttention) -> EncodedViews:
        connector, factor = self.model.model.connector, int(self.config.scale_factor)
        features = connector.pixel_shuffle(output.last_hidden_state, factor)  # (tiles, n, d)
        tiles, n = features.shape[:2]
        side = int(n**0.5)
        flat = given["pixel_values"].flatten(0, 1)  # padding tiles are all zero, and the model leaves them out
        real = flat.flatten(1).ne(0).any(1)
        return EncodedViews(
            views=features.unbind(),
            grids=[VisualGrid(rows=side, columns=side)] * tiles,
            pixels=flat[real].unbind() if int(real.sum()) == tiles else flat[:tiles].unbind(),
            project=self.project,
            project_all=lambda: torch.split(torch.cat(list(output.pooler_output)), n),
            attend=lambda: pooled_shares(attention(), factor),
            attend_keys=lambda: pooled_keys(attention.keys(), factor),
        )

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.model.model.connector.modality_projection(features)
        return projected
