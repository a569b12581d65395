"""Llama4: tiles of one size, projected by the model's own forward; layers that attend within chunks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from salience.vlm.families.base import GROUPED_AFTER_TOWER, FamilyAdapter, need_pictures
from salience.vlm.tower.encoded_views import EncodedViews


class Llama4Adapter(FamilyAdapter):
    """Stages of one `Llama4ForConditionalGeneration`, the model unmodified; each tile is a view with its own budget.

    Its forward projects encoded pictures itself and expects all tokens of a picture. So it gets the prompt's
    embeddings, with the visual tokens in their places. Features are the tower's, (n, vision_output_dim).
    """

    class_names = "Llama4ForConditionalGeneration"
    tower_path = "vision_model"
    projector_path = "multi_modal_projector"
    language_model_path = "language_model.model"
    lm_head_path = "language_model.lm_head"
    no_merging = GROUPED_AFTER_TOWER

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.vision_output_dim)

    @property
    def n_tokens(self) -> int:
        return round(self.patches * float(self.config.vision_config.pixel_shuffle_ratio)) ** 2

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`."""
        self.refuse_unknown(options)
        need_pictures(pixel_values)
        features: Tensor = self.tower(pixel_values, return_dict=True).last_hidden_state  # (tiles, n, d)
        return self.equal_views(features, pixel_values.unbind())

    def forward_layout(self, options: dict[str, Any]) -> dict[str, Any]:
        output = (options.get("mm_encoder_outputs") or {}).get("image")
        if output is None:
            return options
        embedded = self.embed(options["input_ids"], list(output.pooler_output))
        # "image" stays a key, with None: the call still counts as one with pictures, and nothing is left to insert
        return {**options, "input_ids": None, "inputs_embeds": embedded, "mm_encoder_outputs": {"image": None}}
