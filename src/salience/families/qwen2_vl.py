"""Qwen2-VL: pictures of any size, four patches a token, positions of time, height and width (mRoPE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from salience.core.types import VisualGrid
from salience.families.encoded import Encoded
from salience.families.stock import StockAdapter


class Qwen2VLAdapter(StockAdapter):
    """Stages of one `Qwen2VLForConditionalGeneration`, the model unmodified.

    Features are the last layer's four patches of a token side by side, (n, 4 C), as the merger reads them.
    """

    class_name = "Qwen2VLForConditionalGeneration"

    def _tower(self) -> Any:
        return self.model.model.visual

    @property
    def merge(self) -> int:
        """How many patches a side make up a token."""
        return int(self.config.vision_config.spatial_merge_size)

    @property
    def width(self) -> int:
        """The tower's width C."""
        return int(self.config.vision_config.embed_dim)

    @property
    def d_features(self) -> int:
        return self.merge**2 * self.width

    def check(self, given: dict[str, Any]) -> None:
        grid, pixels = given.get("image_grid_thw"), given["pixel_values"]
        if grid is None:
            raise ValueError("image_grid_thw is missing: pass it along with pixel_values, as the processor gives it.")
        if pixels.dim() != 2 or grid.dim() != 2 or pixels.shape[0] != int(grid.prod(-1).sum()):
            raise ValueError(
                f"pixel_values must have a row for each of the {int(grid.prod(-1).sum())} patches of image_grid_thw, "
                f"not be of shape {tuple(pixels.shape)}."
            )

    def read(self, output: Any, given: dict[str, Any]) -> Encoded:
        features = self.in_order(output.last_hidden_state.reshape(-1, self.d_features), given)  # (sum of n_i, 4 C)
        shapes = [tuple(shape) for shape in given["image_grid_thw"].tolist()]
        sizes = [t * h * w // self.merge**2 for t, h, w in shapes]
        return Encoded(
            views=torch.split(features, sizes),
            grids=[VisualGrid(rows=t * h // self.merge, columns=w // self.merge) for t, h, w in shapes],
            pixels=torch.split(given["pixel_values"], [t * h * w for t, h, w in shapes]),
            project=self.project,
            project_all=lambda: list(output.pooler_output),
            deepstack=getattr(output, "deepstack_features", None) or (),
        )

    def in_order(self, features: Tensor, given: dict[str, Any]) -> Tensor:
        """The tower's tokens (N, 4 C) in raster order, the prompt's."""
        return features

    def project(self, features: Tensor) -> Tensor:
        flat = features.reshape(-1, self.width)  # (tokens * 4, C): the merger puts four in a row together
        projected: Tensor = self.tower.merger(flat)
        return projected.reshape(*features.shape[:-1], -1)

    def position_ids(self, given: Mapping[str, Any], mask: Tensor, *, generating: bool) -> Tensor:
        """(3, B, T) in forward, (4, B, T) in generate, the first the text's: of the whole prompt, grids and all."""
        ids, types = given["input_ids"], given.get("mm_token_type_ids")
        if types is None and not generating:
            raise ValueError("mm_token_type_ids is missing: pass it along, as the processor gives it.")
        text = super().position_ids(given, mask, generating=True)
        if types is None:  # generate then counts all tokens as text
            return text.expand(4, -1, -1)
        axes, _ = self.model.base_model.get_rope_index(
            ids, mm_token_type_ids=types, image_grid_thw=given.get("image_grid_thw"), attention_mask=mask
        )
        return torch.cat([text[None], axes]) if generating else axes

    def settle(self, deltas: Tensor | None) -> None:
        if deltas is not None:
            self.model.base_model.rope_deltas = deltas
