"""Ovis2: a token is a mixture of embeddings of a visual vocabulary; each picture has marker tokens around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from salience.vlm.families.base import TowerAttention
from salience.vlm.families.image_features import ImageFeaturesAdapter


class Ovis2Adapter(ImageFeaturesAdapter):
    """Stages of one `Ovis2ForConditionalGeneration`, the model unmodified; each tile is a view with its own budget.

    Features are what the head of the visual vocabulary reads, (n, C s s), the patches of a token side by side.
    """

    class_names = "Ovis2ForConditionalGeneration"
    read_as_tensor = "image"

    @property
    def stride(self) -> int:
        return int(self.config.vision_config.hidden_stride)

    @property
    def d_features(self) -> int:
        return super().d_features * self.stride**2

    @property
    def tower_attention(self) -> TowerAttention:
        return None if self.patches % self.stride else "received"  # the tower then pads its grid

    @property
    def attention_layer(self) -> Any:
        return self.tower.transformer.encoder.layers[-1].attention

    def project(self, features: Tensor) -> Tensor:
        logits = self.tower.head_norm(self.tower.head_linear(features))
        if self.config.vision_config.tokenize_function == "softmax":
            shares = logits.softmax(-1)
        else:  # one word a token; if it were sampled, as the model does, no two calls would be equal
            shares = torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
        marks = shares.new_zeros(*shares.shape[:-1], int(self.tower.num_visual_indicator_tokens))
        projected: Tensor = self.model.model.visual_embeddings_table(torch.cat([shares, marks], dim=-1))
        return projected

    def marks(self) -> Tensor:
        """(marks, d_llm): embeddings of the tokens around pictures, the last ones of the visual vocabulary."""
        words, count = int(self.model.model.visual_vocab_size), int(self.tower.num_visual_indicator_tokens)
        table = self.model.model.visual_embeddings_table
        embeddings: Tensor = table(torch.arange(words - count, words, device=table.weight.device))
        return embeddings

    def encoder_output(self, projected: list[Tensor], deepstack: list[list[Tensor]]) -> Any:
        from transformers.models.ovis2.modeling_ovis2 import BaseModelOutputWithVisualIndicatorFeatures

        return BaseModelOutputWithVisualIndicatorFeatures(
            pooler_output=projected, visual_indicator_features=self.marks()
        )

    def embed(self, input_ids: Tensor, projected: Sequence[Tensor]) -> Tensor:
        embeddings = super().embed(input_ids, projected)
        for token, mark in zip(self.config.visual_indicator_token_ids, self.marks(), strict=False):
            here = (input_ids == token).to(embeddings.device)[..., None]
            embeddings = torch.where(here, mark.to(embeddings), embeddings)
        return embeddings
