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

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`; pixel_values are (patches, values of a patch)."""
        return self._frames("image", "pixel_values", pixel_values, **options)

    def encode_video(self, pixel_values_videos: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode_video`; pixel_values_videos are (patches, values of a patch), two frames a patch."""
        return self._frames("video", "pixel_values_videos", pixel_values_videos, **options)

    def _frames(self, kind: str, name: str, pixels: Tensor, **options: Any) -> EncodedViews:
        """A view for each frame; a picture has one."""
        its_grid = f"{kind}_grid_thw"
        grid = options.pop(its_grid, None)
        if options:
            raise ValueError(f"{name} are encoded with the option {its_grid}, not {sorted(options)}.")
        if grid is None:
            raise ValueError(f"{its_grid} is missing: pass it along with {name}, as the processor gives it.")
        if pixels.dim() != 2 or grid.dim() != 2 or pixels.shape[0] != int(grid.prod(-1).sum()):
            raise ValueError(
                f"{name} must have a row for each of the {int(grid.prod(-1).sum())} patches of {its_grid}, not be of "
                f"shape {tuple(pixels.shape)}."
            )
        last, base = self.tower.blocks[-1].attn, self.model.base_model
        run = base.get_image_features if kind == "image" else base.get_video_features
        with watch_input(last) as seen:
            output = run(pixels, grid, return_dict=True)
        features = self.in_order(output.last_hidden_state.reshape(-1, self.d_features), grid)  # (sum of n_i, 4 C)
        shapes = [(i, h, w) for i, (t, h, w) in enumerate(grid.tolist()) for _ in range(t)]
        sizes = [h * w // self.merge**2 for _, h, w in shapes]
        attention = FusedAttention(last, seen)

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
