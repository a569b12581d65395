"""Qwen2-VL: pictures of any size, four patches a token, positions of time, height and width (mRoPE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from salience.core.types import VisualGrid
from salience.vlm.families.stock import NamedAdapter
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import FusedAttention, watch_input


class Qwen2VLAdapter(NamedAdapter):
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

    @property
    def no_merging(self) -> str:
        return "its vision tower works in windows or frames, and puts four patches of a grid into a token"

    @property
    def token_ids(self) -> dict[str, int]:
        return {"image": self.image_token_id, "video": int(self.config.video_token_id)}

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

    @property
    def tower_attention(self) -> Literal["cls", "received"] | None:
        return "received"

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
        """A view for each frame, a picture's one or those of a video."""
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
        grids = {n: given[n] for n in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts") if n in given}
        axes, _ = self.model.base_model.get_rope_index(ids, mm_token_type_ids=types, attention_mask=mask, **grids)
        return torch.cat([text[None], axes]) if generating else axes

    def settle(self, deltas: Tensor | None) -> None:
        if deltas is not None:
            self.model.base_model.rope_deltas = deltas
