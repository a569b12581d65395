"""InternVL in transformers' own form: tiles of one size, patches shuffled together into tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from salience.core.types import VisualGrid
from salience.families.encoded import Encoded
from salience.families.stock import StockAdapter, as_one_tensor, need_pictures


class InternVLAdapter(StockAdapter):
    """Stages of one `InternVLForConditionalGeneration`, the model unmodified; each tile is a view with its own budget.

    The tower runs without the model's `get_image_features`, which puts hooks on it for good.
    """

    class_name = "InternVLForConditionalGeneration"

    def _tower(self) -> Any:
        return self.model.model.vision_tower

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

    def encode(self, pixel_values: Tensor, **options: Any) -> Encoded:
        """See `Adapter.encode`; features are the shuffled patches, (tiles, n, C / ratio**2)."""
        unknown = set(options) - self.image_arguments
        if unknown:
            raise ValueError(f"encode takes the options {sorted(self.image_arguments)}, not {sorted(unknown)}.")
        need_pictures(pixel_values)
        layer = options.get("vision_feature_layer", self.config.vision_feature_layer)
        if layer != -1:
            raise ValueError(f"vision_feature_layer must be -1, the tower's output, to be pruned, not {layer!r}.")
        strategy = options.get("vision_feature_select_strategy", self.config.vision_feature_select_strategy)
        states = self.tower(pixel_values=pixel_values.to(self.model.dtype), return_dict=True).last_hidden_state
        states = states[:, 1:] if strategy == "default" else states
        side, ratio = int(states.shape[1] ** 0.5), self.config.downsample_ratio
        square = states.reshape(states.shape[0], side, side, -1)
        features = self.model.model.pixel_shuffle(square, scale_factor=ratio).flatten(1, 2)  # (tiles, n, d)
        grid = VisualGrid(rows=int(side * ratio), columns=int(side * ratio))
        return Encoded(
            views=features.unbind(),
            grids=[grid] * features.shape[0],
            pixels=pixel_values.unbind(),
            project=self.project,
            project_all=lambda: self.project(features).unbind(),
            stacked=features,
        )

    def read(self, output: Any, given: dict[str, Any]) -> Encoded:
        raise NotImplementedError("InternVL's encode reads the tower itself.")

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.model.model.multi_modal_projector(features)
        return projected

    def as_forward_reads(self, options: dict[str, Any]) -> dict[str, Any]:
        return as_one_tensor(options)
