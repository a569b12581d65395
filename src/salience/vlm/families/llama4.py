"""Llama4: tiles of one size, projected by the model's own forward; layers that attend within chunks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from salience.core.types import VisualGrid
from salience.vlm.families.stock import NamedAdapter, need_pictures
from salience.vlm.tower.encoded_views import EncodedViews


class Llama4Adapter(NamedAdapter):
    """Stages of one `Llama4ForConditionalGeneration`, the model unmodified; each tile is a view with its own budget.

    Its forward projects what it is handed as encoded pictures, and expects a picture's tokens whole. So it is handed
    the prompt's embeddings, visual tokens in their places. Features are the tower's, (n, vision_output_dim).
    """

    class_name = "Llama4ForConditionalGeneration"

    def _tower(self) -> Any:
        return self.model.vision_model

    @property
    def language_model(self) -> nn.Module:
        module: nn.Module = self.model.language_model.model
        return module

    @property
    def lm_head(self) -> nn.Module:
        module: nn.Module = self.model.language_model.lm_head
        return module

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.vision_output_dim)

    @property
    def side(self) -> int:
        """Tokens along one side of a tile."""
        vision = self.config.vision_config
        return round(int(vision.image_size) // int(vision.patch_size) * float(vision.pixel_shuffle_ratio))

    @property
    def n_tokens(self) -> int:
        return self.side**2

    @property
    def no_merging(self) -> str:
        return "its patches are put together on their grid, behind the tower"

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`."""
        if options:
            raise ValueError(f"encode takes no options, not {sorted(options)}.")
        need_pictures(pixel_values)
        features = self.tower(pixel_values, return_dict=True).last_hidden_state  # (tiles, n, d)
        return EncodedViews(
            views=features.unbind(),
            grids=[VisualGrid(rows=self.side, columns=self.side)] * features.shape[0],
            pixels=pixel_values.unbind(),
            project=self.project,
            project_all=lambda: self.project(features).unbind(),
            stacked=features,
        )

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.model.multi_modal_projector(features)
        return projected

    def as_forward_reads(self, options: dict[str, Any]) -> dict[str, Any]:
        output = (options.get("mm_encoder_outputs") or {}).get("image")
        if output is None:
            return options
        embedded = self.embed(options["input_ids"], list(output.pooler_output))
        # a picture of none: the call still counts as one with pictures, and the model has nothing left to put in
        return {**options, "input_ids": None, "inputs_embeds": embedded, "mm_encoder_outputs": {"image": None}}
