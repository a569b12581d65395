"""The picture that is drawn on, and the file it goes to; `salience.apply.drawing` draws."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salience.core.files import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def seen_picture(pixel_values: Tensor, image_processor: Any, picture: Image) -> Image:
    """The first view of the picture as the model sees it, cropped and scaled: normalised pixels back to RGB.

    pixel_values: (pictures, 3, H, W), or with tiles (pictures, tiles, 3, H, W); where they are patches, (n, d), the
    whole `picture` is what was seen
    """
    from PIL import Image

    if pixel_values.dim() < 4:
        return picture
    pixels = pixel_values.flatten(0, -4)[0].detach().float().cpu().numpy()  # (3, H, W)
    if getattr(image_processor, "do_normalize", True):
        mean, std = (np.asarray(getattr(image_processor, name))[:, None, None] for name in ("image_mean", "image_std"))
        pixels = pixels * std + mean
    return Image.fromarray((pixels.transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8))


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
