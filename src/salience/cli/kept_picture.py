"""Draw what was kept of a picture: kept cells as they are, the rest dimmed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salience.core.files import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from salience.core.types import VisualGrid

_DIM = 0.35  # brightness of what was dropped: dark enough to stand back, light enough to see what it was


def seen_picture(pixel_values: Tensor, image_processor: Any) -> Image:
    """The picture as the model sees it, cropped and scaled: (3, H, W) normalised pixels back to RGB."""
    from PIL import Image

    pixels = pixel_values.detach().float().cpu().numpy()  # (3, H, W)
    if getattr(image_processor, "do_normalize", True):
        mean, std = (np.asarray(getattr(image_processor, name))[:, None, None] for name in ("image_mean", "image_std"))
        pixels = pixels * std + mean
    return Image.fromarray((pixels.transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8))


def kept_picture(picture: Image, grid: VisualGrid, kept: Sequence[int]) -> Image:
    """`picture` with the cells `kept` of `grid` bright and the others grey and dark."""
    from PIL import Image

    mask = np.zeros(grid.n, dtype=bool)
    mask[list(kept)] = True
    cells = Image.fromarray(mask.reshape(grid.rows, grid.columns))
    bright = np.asarray(cells.resize(picture.size, Image.Resampling.NEAREST))[..., None]  # (H, W, 1)
    pixels = np.asarray(picture, dtype=np.float32)  # (H, W, 3)
    grey = pixels.mean(-1, keepdims=True)
    dimmed = _DIM * (0.5 * pixels + 0.5 * grey)
    return Image.fromarray(np.where(bright, pixels, dimmed).astype(np.uint8))


def require_picture_path(path: Path) -> None:
    """Raise ValueError unless a picture can be written to `path`: a known suffix, in a folder that is there."""
    from PIL import Image

    Image.init()
    suffix = path.suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise ValueError(f"--picture: {path} must end in .png, .jpg or another picture format's suffix.")
    if path.is_dir():
        raise ValueError(f"--picture: {path} is a folder; the name of a file is needed.")


def save_picture(picture: Image, path: Path) -> None:
    """Write the picture in the format of its suffix, aside first and then renamed."""
    from PIL import Image

    buffer = io.BytesIO()
    picture.save(buffer, format=Image.registered_extensions()[path.suffix.lower()])
    write_atomic(path, buffer.getvalue())
