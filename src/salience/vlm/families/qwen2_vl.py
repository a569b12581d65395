"""Qwen2-VL: pictures of any size, four patches in a token, positions of time, height and width (mRoPE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.types import VisualGrid
from salience.vlm.families.base import FamilyAdapter, RopeIndexPositions, TowerAttention
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import FusedAttention, watch_input


class Qwen2VLAdapter(RopeIndexPositions, FamilyAdapter):
    """Stages of one `Qwen2VLForConditionalGeneration`, the model unmodified.

    Features are the last layer's four patches of a token side by side, (n, 4 C), as the merger reads them.
    """

    class_names = "Qwen2VLForConditionalGeneration"
    tower_path = "model.visual"
    has_videos = True
    tower_attention: TowerAttention = "received"
    no_merging = "its vision tower attends within windows or frames, and groups four patches into a token"

    @property
    def merge(self) -> int:
        """Patches along one side of a token."""
        return int(self.config.vision_config.spatial_merge_size)

    @property
    def width(self) -> int:
        """The tower's width C, which only Qwen2-VL's config calls `embed_dim`."""
        vision = self.config.vision_config
        return int(getattr(vision, "embed_dim", vision.hidden_size))

    @property
    def d_features(self) -> int:
        return self.merge**2 * self.width

    def encode(self, pixel_values: Tensor, *, image_grid_thw: Tensor | None = None, **unknown: Any) -> EncodedViews:
        """See `Adapter.encode`; pixel_values are (patches, values of a patch)."""
        grid = self._checked("pixel_values", pixel_values, "image_grid_thw", image_grid_thw, unknown)
        with watch_input(self.tower.blocks[-1].attn) as seen:
            output = self.model.base_model.get_image_features(pixel_values, grid, return_dict=True)
        return self._frames(output, pixel_values, grid, "image", seen)

    def encode_video(self, pixel_values_videos: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode_video`; pixel_values_videos are (patches, values of a patch), two frames a patch."""
        grid, pixels = options.pop("video_grid_thw", None), pixel_values_videos
        grid = self._checked("pixel_values_videos", pixels, "video_grid_thw", grid, options)
        with watch_input(self.tower.blocks[-1].attn) as seen:
            output = self.model.base_model.get_video_features(pixels, grid, return_dict=True)
        return self._frames(output, pixels, grid, "video", seen)

    def _checked(
        self, name: str, pixels: Tensor, its_grid: str, grid: Tensor | None, unknown: dict[str, Any]
    ) -> Tensor:
        if unknown:
            raise ValueError(f"{name} are encoded with the option {its_grid}, not {sorted(unknown)}.")
        if grid is None:
            raise ValueError(f"{its_grid} is missing: pass it along with {name}, as the processor gives it.")
        if pixels.dim() != 2 or grid.dim() != 2 or pixels.shape[0] != int(grid.prod(-1).sum()):
            raise ValueError(
                f"{name} must have a row for each of the {int(grid.prod(-1).sum())} patches of {its_grid}, not be of "
                f"shape {tuple(pixels.shape)}."
            )
        return grid

    def _frames(self, output: Any, pixels: Tensor, grid: Tensor, kind: str, seen: dict[str, Any]) -> EncodedViews:
        """A view for each frame; a picture has one."""
        features = self.in_order(output.last_hidden_state.reshape(-1, self.d_features), grid)  # (sum of n_i, 4 C)
        shapes = [(i, h, w) for i, (t, h, w) in enumerate(grid.tolist()) for _ in range(t)]
        sizes = [h * w // self.merge**2 for _, h, w in shapes]
        attention = FusedAttention(self.tower.blocks[-1].attn, seen)

        def attend() -> list[Tensor]:
            paid = self.in_order(attention().reshape(-1, self.merge**2), grid).sum(1)  # (sum of n_i,)
            return [part / (h * w) for part, (_, h, w) in zip(torch.split(paid, sizes), shapes, strict=True)]

        def keys() -> tuple[Tensor, ...]:
            read = attention.keys()  # (patches, heads, d_head)
            fours = read.reshape(-1, self.merge**2, *read.shape[1:]).mean(1)  # (sum of n_i, heads, d_head)
            return torch.split(self.in_order(fours, grid), sizes)

        return EncodedViews(
            views=torch.split(features, sizes),
            grids=[VisualGrid(rows=h // self.merge, columns=w // self.merge) for _, h, w in shapes],
            pixels=torch.split(pixels, [h * w for _, h, w in shapes]),
            project=self.project,
            project_all=lambda: torch.split(torch.cat(list(output.pooler_output)), sizes),
            attend=attend,
            attend_keys=keys,
            pictures=[i for i, _, _ in shapes],
            kinds=[kind] * len(shapes),
            deepstack=[
                torch.split(torch.cat(list(layer)), sizes)
                for layer in getattr(output, "deepstack_features", None) or ()
            ],
        )

    def in_order(self, features: Tensor, grid: Tensor) -> Tensor:
        """The tower's tokens (N, 4 C) in raster order, the prompt's."""
        return features

    def project(self, features: Tensor) -> Tensor:
        flat = features.reshape(-1, self.width)  # (tokens * 4, C): the merger joins four consecutive rows
        projected: Tensor = self.tower.merger(flat)
        return projected.reshape(*features.shape[:-1], -1)
