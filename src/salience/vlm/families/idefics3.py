"""Idefics3 and SmolVLM: a sample's pictures in tiles of one size, patches shuffled together into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from salience.vlm.families.image_features import ImageFeaturesAdapter


class Idefics3Adapter(ImageFeaturesAdapter):
    """Stages of one Idefics3 or SmolVLM, the model unmodified; SmolVLM's video frames come as pictures.

    The model returns a sample's tiles in one piece. Each tile is a view with a budget of its own, so that every part of
    every picture keeps tokens. Features are the shuffled patches, (n, C s s).
    """

    class_names = "Idefics3ForConditionalGeneration SmolVLMForConditionalGeneration"
    tower_path = "model.vision_model"
    projector_path = "model.connector.modality_projection"
    language_model_path = "model.text_model"

    @property
    def stride(self) -> int:
        return int(self.config.scale_factor)

    @property
    def d_features(self) -> int:
        return super().d_features * self.stride**2

    def features(self, states: Tensor) -> Tensor:
        shuffled: Tensor = self.model.model.connector.pixel_shuffle(states, self.stride)
        return shuffled

    def check(self, pixel_values: Tensor) -> None:
        if pixel_values.dim() != 5:
            raise ValueError(
                f"pixel_values must be (samples, tiles, 3, H, W), not of shape {tuple(pixel_values.shape)}."
            )

    def view_pixels(self, pixel_values: Tensor, views: int) -> Sequence[Tensor]:
        flat = pixel_values.flatten(0, 1)
        real = flat.flatten(1).ne(0).any(1)  # padding tiles are all zero, and the model leaves them out
        return flat[real].unbind() if int(real.sum()) == views else flat[:views].unbind()

    def view_tokens(self, output: Any, n: int) -> Sequence[Tensor]:
        return torch.split(torch.cat(list(output.pooler_output)), n)
