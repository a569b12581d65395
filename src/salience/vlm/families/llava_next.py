"""LLaVA-NeXT: each picture whole and again enlarged, in tiles; a newline token ends each row of the enlarged one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from salience.core.types import VisualGrid
from salience.vlm.families.llava import LlavaAdapter
from salience.vlm.tower.encoded_views import EncodedViews


class LlavaNextAdapter(LlavaAdapter):
    """Stages of one `LlavaNextForConditionalGeneration`, the model unmodified.

    A picture has two views, the whole one and the enlarged one without its padding, or one if it has no tiles. The
    model's own packing orders tiles and newlines, always on all tokens, never on pruned ones. [CLS] attention of the
    enlarged view is that of each tile's own [CLS].
    """

    class_names = "LlavaNextForConditionalGeneration"
    no_merging = "its tiles lose their padding and gain newlines on their grid, after the tower"

    @property
    def n_tokens(self) -> None:
        return None

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`; pixel_values are (images, tiles, 3, H, W), padded, or (all tiles, 3, H, W)."""
        self.refuse_unknown(options)
        image_sizes = options.get("image_sizes")
        if image_sizes is None:
            raise ValueError("image_sizes is missing: pass it along with pixel_values, as the processor gives it.")
        counts = self.tile_counts(image_sizes, options)
        if pixel_values.dim() == 5:
            pixel_values = torch.cat([tiles[:n] for tiles, n in zip(pixel_values, counts, strict=True)])
        if pixel_values.dim() != 4 or pixel_values.shape[0] != sum(counts):
            raise ValueError(
                f"pixel_values must hold the {sum(counts)} tiles that image_sizes stands for, not be of shape "
                f"{tuple(pixel_values.shape)}."
            )
        features, attend = self.states(pixel_values, options)
        pack = _Packing(self, counts, image_sizes, options)
        newline: Tensor = self.model.model.image_newline
        return EncodedViews(
            views=pack.views(features),
            grids=pack.grids,
            pixels=[part for tiles in torch.split(pixel_values, counts) for part in _parts(tiles)],
            project=self.project,
            project_all=lambda: pack.views(self.project(features), newline),
            attend=None if attend is None else lambda: [x[:, 0] for x in pack.views(attend()[..., None])],
            attend_keys=None if attend is None else lambda: pack.keys(attend.keys()),
            pictures=pack.pictures,
            breaks=pack.breaks,
            newline=newline,
        )

    def tile_counts(self, image_sizes: Any, options: dict[str, Any]) -> list[int]:
        """Number of tiles of each picture, the whole one included."""
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        pinpoints, side = self.config.image_grid_pinpoints, int(self.config.vision_config.image_size)
        return [
            image_size_to_num_patches(image_size=size, grid_pinpoints=pinpoints, patch_size=side)
            for size in image_sizes
        ]

    def pack(self, tiles: Sequence[Tensor], image_sizes: Any, newline: Tensor, options: dict[str, Any]) -> list[Tensor]:
        """Tiles (t, n, c) of each picture and the newline (c,), packed by the model in the prompt's order: (m, c)."""
        strategy = options.get("vision_feature_select_strategy") or self.config.vision_feature_select_strategy
        packed, _ = self.model.model.pack_image_features(
            list(tiles), image_sizes, vision_feature_select_strategy=strategy, image_newline=newline
        )
        return list(packed)


class _Packing:
    """Places of each tile's tokens in the prompt, found by packing marks instead of tokens."""

    def __init__(self, adapter: LlavaNextAdapter, counts: list[int], image_sizes: Any, options: dict[str, Any]) -> None:
        self.adapter, self.counts, self.image_sizes, self.options = adapter, counts, image_sizes, options
        side = adapter.patches
        marks = torch.zeros(sum(counts), side * side, 1)
        packed = adapter.pack(torch.split(marks, counts), image_sizes, torch.ones(1), options)
        self.breaks: list[Tensor] = []
        self.grids: list[VisualGrid] = []
        self.pictures: list[int] = []
        for picture, (mark, count) in enumerate(zip(packed, counts, strict=True)):
            ends = mark[:, 0] > 0.5
            whole = VisualGrid(rows=side, columns=side)
            for part in [ends[: side * side], ends[side * side :]] if count > 1 else [ends]:
                rows = int(part.sum())
                large = count > 1 and rows > 0
                self.grids.append(VisualGrid(rows=rows, columns=len(part) // rows - 1) if large else whole)
                self.breaks.append(part)
                self.pictures.append(picture)

    def views(self, tiles: Tensor, newline: Tensor | None = None) -> list[Tensor]:
        """(all tiles, n, c) -> for each view (n_i, c), without newlines."""
        newline = tiles.new_zeros(tiles.shape[-1]) if newline is None else newline
        packed = self.adapter.pack(torch.split(tiles, self.counts), self.image_sizes, newline, self.options)
        sizes = [len(part) for part in self.breaks]
        parts = torch.split(torch.cat(packed), sizes)
        return [part[~ends.to(part.device)] for part, ends in zip(parts, self.breaks, strict=True)]

    def keys(self, tiles: Tensor) -> list[Tensor]:
        """(all tiles, n, heads, d_head) -> for each view (n_i, heads, d_head)."""
        return [x.view(-1, *tiles.shape[-2:]) for x in self.views(tiles.flatten(-2))]


def _parts(tiles: Tensor) -> list[Tensor]:
    """A picture's tiles (t, 3, H, W) -> the tiles of each of its views."""
    return [tiles[:1], tiles[1:]] if tiles.shape[0] > 1 else [tiles]
