"""Picture arguments of a model: tensors of the right shapes, without a picture.

The shapes are those of the model's own processor (`processor_settings.py`), or follow from its configuration.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salience.lab.data.readers.picture_decoding import LARGEST_AREA, LARGEST_SIDE, LONGEST_STRIP

#: Width and height of the picture where a model takes any size: a photograph, 4 to 3.
DEFAULT_SIZE = (1024, 768)
#: SmolVLM's and Idefics3's processors scale the longer side to so many tiles.
_TILES = 4


@dataclass(frozen=True, kw_only=True)
class PictureInputs:
    """`count` pictures of `size` (width, height) in pixels.

    prepared: the arguments that the model's own processor returns for one; None for the family's usual settings

    Raises:  ValueError when there is no picture, it has no pixel, or it is larger than a picture file may be
    """

    count: int
    size: tuple[int, int] = DEFAULT_SIZE
    prepared: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.size) < 1:
            raise ValueError(f"there must be pictures of at least 1 pixel, not {self.count} of {self.size}.")
        width, height = self.size
        if (
            max(self.size) >= LARGEST_SIDE
            or width * height > LARGEST_AREA
            or max(self.size) > LONGEST_STRIP * min(self.size)
        ):
            raise ValueError(
                f"picture must be less than {LARGEST_SIDE:,} pixels on a side, at most {LARGEST_AREA:,} in all and no "
                f"strip thinner than 1 to {LONGEST_STRIP}, as a picture file, not {width:,} x {height:,}."
            )

    def arguments(
        self, config: Any, device: torch.device | str, dtype: torch.dtype, takes: Container[str] | None = None
    ) -> dict[str, Tensor]:
        """The image arguments of this model's `get_image_features`; floats standard normal, or shapes on `meta`.

        takes: names of the arguments that it accepts, of all that the processor returns; None for all

        Raises:  ValueError when the size of pictures is not in the configuration
        """
        # whole numbers keep their values where the pixels are only shapes
        where = "cpu" if torch.device(device).type == "meta" else device
        if not self.prepared:
            shape, numbers = self._shapes(config)
            found = {"pixel_values": torch.randn(*shape, device=device, dtype=dtype)}
            return found | {name: torch.tensor(value, device=where) for name, value in numbers.items()}
        found = {}
        for name, value in self.prepared.items():
            if takes is None or name in takes:
                if value.is_floating_point():
                    shape = [self.count * value.shape[0], *value.shape[1:]]
                    found[name] = torch.randn(*shape, device=device, dtype=dtype)
                else:
                    found[name] = value.repeat(self.count, *[1] * (value.dim() - 1)).to(where)
        return found

    def _shapes(self, config: Any) -> tuple[list[int], dict[str, list[list[int]]]]:
        """The shape of `pixel_values`, and the arguments that go with it."""
        vision = config.vision_config
        if getattr(config, "image_grid_pinpoints", None):
            return self._tiled(config)
        if hasattr(vision, "spatial_merge_size") and hasattr(vision, "temporal_patch_size"):
            return self._any_size(vision)
        side = getattr(vision, "image_size", None)
        if side is None:
            raise ValueError(f"model: {config.model_type!r} has no size of pictures in its configuration.")
        height, width = (side, side) if isinstance(side, int) else side
        if hasattr(config, "scale_factor"):
            return [1, self.count * self._split(), 3, height, width], {}
        return [self.count, 3, height, width], {}

    def takes_any_size(self, config: Any) -> bool:
        """Whether the model's tokens depend on the size of its picture."""
        vision = config.vision_config
        return bool(
            getattr(config, "image_grid_pinpoints", None)
            or hasattr(vision, "temporal_patch_size")
            or hasattr(config, "scale_factor")
        )

    def _any_size(self, vision: Any) -> tuple[list[int], dict[str, list[list[int]]]]:
        """Qwen-VL: all patches in a row, and their numbers along the height and width of each picture."""
        step = vision.patch_size * vision.spatial_merge_size
        width, height = (max(1, round(side / step)) * vision.spatial_merge_size for side in self.size)
        channels = getattr(vision, "in_channels", None) or getattr(vision, "in_chans", 3)
        values = channels * vision.temporal_patch_size * vision.patch_size**2
        return [self.count * height * width, values], {"image_grid_thw": [[1, height, width]] * self.count}

    def _tiled(self, config: Any) -> tuple[list[int], dict[str, list[list[int]]]]:
        """LLaVA-NeXT and OneVision: the whole picture and its tiles, at the best fitting resolution."""
        from transformers.image_processing_utils import select_best_resolution

        side, (width, height) = config.vision_config.image_size, self.size
        rows, columns = select_best_resolution((height, width), config.image_grid_pinpoints)
        tiles = 1 + math.ceil(rows / side) * math.ceil(columns / side)
        return [self.count, tiles, 3, side, side], {"image_sizes": [[height, width]] * self.count}

    def _split(self) -> int:
        """SmolVLM and Idefics3: tiles of a picture whose longer side is scaled to `_TILES`, and the whole picture."""
        columns, rows = (math.ceil(_TILES * side / max(self.size)) for side in self.size)
        return 1 + columns * rows
