"""Gemma3: SigLIP patches averaged into tokens; a picture's tokens attend to each other in both directions."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.vlm.families.image_features import ImageFeaturesAdapter


class Gemma3Adapter(ImageFeaturesAdapter):
    """Stages of one `Gemma3ForConditionalGeneration`, the model unmodified; features are the averaged patches."""

    class_names = "Gemma3ForConditionalGeneration"
    no_merging = "its patches are averaged on their grid, after the tower"
    read_as_tensor = "image"

    @property
    def stride(self) -> int:
        return int(self.projector.patches_per_image) // int(self.projector.tokens_per_side)

    def features(self, states: Tensor) -> Tensor:
        side = self.projector.patches_per_image
        pooled: Tensor = self.projector.avg_pool(states.transpose(1, 2).reshape(*states.shape[::2], side, side))
        return pooled.flatten(2).transpose(1, 2)

    def project(self, features: Tensor) -> Tensor:
        normed = self.projector.mm_soft_emb_norm(features)
        return torch.matmul(normed, self.projector.mm_input_projection_weight).type_as(features)
