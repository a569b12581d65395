"""InternVL in transformers' own form: tiles of one size, patches shuffled together into tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.precision import full_precision
from salience.vlm.families.base import GROUPED_AFTER_TOWER, FamilyAdapter, TowerAttention, need_pictures
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import pooled_keys, pooled_shares, watch_input


class InternVLAdapter(FamilyAdapter):
    """Stages of one `InternVLForConditionalGeneration`, the model unmodified; each tile is a view with its own budget.

    The tower runs without the model's `get_image_features`, which never removes the hooks it sets.
    """

    class_names = "InternVLForConditionalGeneration"
    no_merging = GROUPED_AFTER_TOWER
    read_as_tensor = "image"
    tower_attention: TowerAttention = "cls"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._check(self.config.vision_feature_layer, self.config.vision_feature_select_strategy)

    def _check(self, layer: Any, strategy: str) -> None:
        if layer != -1:
            raise ValueError(f"vision_feature_layer must be -1, the tower's output, to be pruned, not {layer!r}.")
        if strategy != "default":
            raise ValueError(f"vision_feature_select_strategy must be 'default', without [CLS], not {strategy!r}.")

    @property
    def d_features(self) -> int:
        return round(int(self.config.vision_config.hidden_size) / float(self.config.downsample_ratio) ** 2)

    @property
    def n_tokens(self) -> int:
        vision, ratio = self.config.vision_config, self.config.downsample_ratio
        rows, columns = (
            int(size // patch * ratio) for size, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return rows * columns

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`; features are the shuffled patches, (tiles, n, C / ratio**2)."""
        self.refuse_unknown(options)
        need_pictures(pixel_values)
        layer = options.get("vision_feature_layer", self.config.vision_feature_layer)
        strategy = options.get("vision_feature_select_strategy", self.config.vision_feature_select_strategy)
        self._check(layer, strategy)
        with watch_input(self.tower.encoder.layer[-1].attention) as seen:
            states = self.tower(pixel_values=pixel_values.to(self.model.dtype), return_dict=True).last_hidden_state
        states = states[:, 1:]
        side, ratio = int(states.shape[1] ** 0.5), self.config.downsample_ratio
        square = states.reshape(states.shape[0], side, side, -1)
        features = self.model.model.pixel_shuffle(square, scale_factor=ratio).flatten(1, 2)  # (tiles, n, d)
        return self.equal_views(
            features,
            pixel_values.unbind(),
            attend=lambda: self._cls_attention(seen["hidden_states"], int(1 / ratio)),
            attend_keys=lambda: pooled_keys(self._heads("k", seen["hidden_states"][:, 1:]), int(1 / ratio)),
        )

    @torch.no_grad()
    def _cls_attention(self, hidden: Tensor, factor: int) -> Tensor:
        """(tiles, n) float32: attention of [CLS] in the last layer, summed over each token's patches."""
        query, key = self._heads("q", hidden[:, :1]), self._heads("k", hidden)  # (tiles, 1 or tokens, heads, d_head)
        with full_precision(query.device):
            logits = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * self.tower.encoder.layer[-1].attention.scale
        return pooled_shares(logits.softmax(-1).mean(1)[:, 0, 1:], factor)

    @torch.no_grad()
    def _heads(self, kind: str, hidden: Tensor) -> Tensor:
        """(tiles, tokens, d) -> the last layer's queries "q" or keys "k", (tiles, tokens, heads, d_head) float32."""
        attention = self.tower.encoder.layer[-1].attention
        heads: Tensor = getattr(attention, f"{kind}_norm")(getattr(attention, f"{kind}_proj")(hidden))
        return heads.float().reshape(*heads.shape[:-1], int(attention.num_heads), -1)
