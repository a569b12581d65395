"""Gemma3: SigLIP patches averaged into tokens; a picture's tokens attend each other both ways."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.vlm.families.paligemma import PaliGemmaAdapter


class Gemma3Adapter(PaliGemmaAdapter):
    """Stages of one `Gemma3ForConditionalGeneration`, the model unmodified; features are the averaged patches."""

    class_name = "Gemma3ForConditionalGeneration"

    @property
    def n_tokens(self) -> int:
        return int(self.config.mm_tokens_per_image)

    @property
    def no_merging(self) -> str:
        return "its patches are averaged on their grid, behind the tower"

    @property
    def first_position(self) -> int:
        return 0

    @property
    def patches_a_side(self) -> int:
        projector = self.model.model.multi_modal_projector
        return int(projector.patches_per_image) // int(projector.tokens_per_side)

    def in_tokens(self, states: Tensor) -> Tensor:
        projector = self.model.model.multi_modal_projector
        side = projector.patches_per_image
        pooled: Tensor = projector.avg_pool(states.transpose(1, 2).reshape(*states.shape[::2], side, side))
        return pooled.flatten(2).transpose(1, 2)

    def project(self, features: Tensor) -> Tensor:
        projector = self.model.model.multi_modal_projector
        normed = projector.mm_soft_emb_norm(features)
        return torch.matmul(normed, projector.mm_input_projection_weight).type_as(features)
