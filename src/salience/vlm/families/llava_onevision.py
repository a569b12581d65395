"""LLaVA-OneVision: LLaVA-NeXT's tiles; large pictures are scaled down after the projector; several stay whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.core.types import VisualGrid
from salience.vlm.families.llava_next import LlavaNextAdapter
from salience.vlm.tower.encoded_views import EncodedViews


class LlavaOnevisionAdapter(LlavaNextAdapter):
    """Stages of one `LlavaOnevisionForConditionalGeneration`, the model unmodified.

    The model scales a large picture down by interpolating its projected tokens. A method then sees the tower's features
    interpolated in the same way, and a kept token is the model's own. A video's frames are halved in the same way; its
    one newline, after the last frame, is always kept.
    """

    class_names = "LlavaOnevisionForConditionalGeneration"
    has_videos = True
    read_as_tensor = "video"

    def tile_counts(self, image_sizes: Any, options: dict[str, Any]) -> list[int]:
        counts = super().tile_counts(image_sizes, options)
        together = options.get("batch_num_images")
        if together is None:
            return counts
        alone = [int(n) == 1 for n in together for _ in range(int(n))]
        return [count if cut else 1 for count, cut in zip(counts, alone, strict=True)]

    def pack(self, tiles: Sequence[Tensor], image_sizes: Any, newline: Tensor, options: dict[str, Any]) -> list[Tensor]:
        ratio = options.get("vision_aspect_ratio") or self.config.vision_aspect_ratio
        packed, _ = self.model.model.pack_image_features(
            list(tiles), image_sizes, image_newline=newline, vision_aspect_ratio=ratio
        )
        return list(packed)

    def encode_video(self, pixel_values_videos: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode_video`; pixel_values_videos are (videos, frames, 3, H, W)."""
        if unknown := set(options) - {"vision_feature_layer", "vision_feature_select_strategy"}:
            raise ValueError(f"pixel_values_videos are encoded without the options {sorted(unknown)}.")
        if pixel_values_videos.dim() != 5:
            raise ValueError(
                "pixel_values_videos must be (videos, frames, 3, H, W), not of shape "
                f"{tuple(pixel_values_videos.shape)}."
            )
        videos, frames = pixel_values_videos.shape[:2]
        flat = pixel_values_videos.flatten(0, 1)
        features, attend = self.states(flat, options)
        halved = self.model.model.apply_pooling
        views = halved(features).unbind()
        side = -(-self.patches // 2)
        end = torch.zeros(side * side + 1, dtype=torch.bool)
        end[-1] = True
        return EncodedViews(
            views=views,
            grids=[VisualGrid(rows=side, columns=side)] * (videos * frames),
            pixels=flat.unbind(),
            project=self.project,
            project_all=lambda: halved(self.project(features)).unbind(),
            pictures=[video for video in range(videos) for _ in range(frames)],
            attend=None if attend is None else lambda: halved(attend()[..., None])[..., 0],
            attend_keys=None if attend is None else lambda: _halved_keys(halved, attend.keys()),
            kinds=["video"] * (videos * frames),
            breaks=[end if frame == frames - 1 else None for _ in range(videos) for frame in range(frames)],
            newline=self.model.model.image_newline,
        )


def _halved_keys(halved: Callable[[Tensor], Tensor], keys: Tensor) -> Tensor:
    """(frames, n, heads, d_head) -> the same of the halved frames."""
    small = halved(keys.flatten(2))
    return small.reshape(*small.shape[:2], *keys.shape[2:])
