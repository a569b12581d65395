"""Ovis2: a visual vocabulary, of whose embeddings a token is a mixture, and marks of its own around each picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from salience.core.types import VisualGrid
from salience.vlm.families.stock import StockAdapter, need_pictures
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import ProjectedAttention, pooled_keys, pooled_shares


class Ovis2Adapter(StockAdapter):
    """Stages of one `Ovis2ForConditionalGeneration`, the model unmodified; each tile is a view with its own budget.

    Features are what the head of the visual vocabulary reads, (n, C s s), the patches of a token side by side.
    """

    class_name = "Ovis2ForConditionalGeneration"

    def _tower(self) -> Any:
        return self.model.model.vision_tower

    @property
    def stride(self) -> int:
        """Patches along one side of a token."""
        return int(self.config.vision_config.hidden_stride)

    @property
    def patches(self) -> int:
        """Patches along one side of a tile."""
        vision = self.config.vision_config
        return int(vision.image_size) // int(vision.patch_size)

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.hidden_size) * self.stride**2

    @property
    def n_tokens(self) -> int:
        return math.ceil(self.patches / self.stride) ** 2

    @property
    def no_merging(self) -> str:
        return "its patches are put together on their grid, behind the tower"

    @property
    def tower_attention(self) -> Literal["cls", "received"] | None:
        return None if self.patches % self.stride else "received"  # the tower then pads its grid

    @property
    def attention_layer(self) -> Any:
        return self.tower.transformer.encoder.layers[-1].attention

    def check(self, given: dict[str, Any]) -> None:
        need_pictures(given["pixel_values"])

    def read(self, output: Any, given: dict[str, Any], attention: ProjectedAttention) -> EncodedViews:
        features = output.last_hidden_state  # (tiles, n, d)
        side, read = int(features.shape[1] ** 0.5), self.tower_attention is not None
        return EncodedViews(
            views=features.unbind(),
            grids=[VisualGrid(rows=side, columns=side)] * features.shape[0],
            pixels=given["pixel_values"].unbind(),
            project=self.project,
            project_all=lambda: output.pooler_output.unbind(),
            attend=(lambda: pooled_shares(attention(), self.stride)) if read else None,
            attend_keys=(lambda: pooled_keys(attention.keys(), self.stride)) if read else None,
        )

    def project(self, features: Tensor) -> Tensor:
        logits = self.tower.head_norm(self.tower.head_linear(features))
        if self.config.vision_config.tokenize_function == "softmax":
            shares = logits.softmax(-1)
        else:  # one word a token; drawn, where the model draws, no two calls would be alike
            shares = torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
        marks = shares.new_zeros(*shares.shape[:-1], int(self.tower.num_visual_indicator_tokens))
        projected: Tensor = self.model.model.visual_embeddings_table(torch.cat([shares, marks], dim=-1))
        return projected

    def marks(self) -> Tensor:
        """(marks, d_llm): the embeddings of the tokens around pictures, from the visual vocabulary's end."""
        words, count = int(self.model.model.visual_vocab_size), int(self.tower.num_visual_indicator_tokens)
        table = self.model.model.visual_embeddings_table
        embeddings: Tensor = table(torch.arange(words - count, words, device=table.weight.device))
        return embeddings

    def encoder_outputs(
        self, projected: Sequence[Tensor], deepstack: Sequence[Sequence[Tensor]] = (), kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        from transformers.models.ovis2.modeling_ovis2 import BaseModelOutputWithVisualIndicatorFeatures

        output = BaseModelOutputWithVisualIndicatorFeatures(
            pooler_output=list(projected), visual_indicator_features=self.marks()
        )
        return {"image": output}

    def as_forward_reads(self, options: dict[str, Any]) -> dict[str, Any]:
        output = (options.get("mm_encoder_outputs") or {}).get("image")
        if output is None or isinstance(output.pooler_output, Tensor):
            return options
        return {**options, "mm_encoder_outputs": {"image": type(output)(
            pooler_output=torch.cat(list(output.pooler_output))[None],
            visual_indicator_features=output.visual_indicator_features,
        )}}  # fmt: skip

    def embed(self, input_ids: Tensor, projected: Sequence[Tensor]) -> Tensor:
        embeddings = super().embed(input_ids, projected)
        for token, mark in zip(self.config.visual_indicator_token_ids, self.marks(), strict=False):
            here = (input_ids == token).to(embeddings.device)[..., None]
            embeddings = torch.where(here, mark.to(embeddings), embeddings)
        return embeddings
