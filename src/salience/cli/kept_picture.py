"""The region of a picture that the model sees, and the file of the drawing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salience.core.files import write_atomic
from salience.vlm.drawing import Region

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from torch import Tensor


def seen_region(pixels_of: Callable[[Image], Tensor], picture: Image) -> tuple[Region, tuple[int, int] | None]:
    """The part of the picture that the model's first view shows, and the view's width and height in pixels.

    The processor is run on three probe pictures: one whose colours encode the position, and a black and a white one,
    which reveal the normalisation and added borders. So this works for every processor, whether it crops, squashes,
    pads or cuts tiles. If the pixels come as patches, (n, d), the whole picture is seen and no size is known.

    pixels_of: a picture -> `pixel_values`, (pictures, 3, H, W), or with tiles (pictures, tiles, 3, H, W)
    """
    from PIL import Image

    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    if pixels_of(picture).dim() < 4:
        return whole, None
    across, down = (np.linspace(0, 255, side).round().astype(np.uint8) for side in picture.size)
    probe = np.zeros((picture.height, picture.width, 3), dtype=np.uint8)
    probe[..., 0], probe[..., 1] = across[None, :], down[:, None]
    black, white, colours = (
        _first_view(pixels_of(each))
        for each in (Image.new("RGB", picture.size), Image.new("RGB", picture.size, "white"), Image.fromarray(probe))
    )
    gain = white - black  # (3, H, W); none where a border was added
    shown = np.abs(gain).min(0) > 0.5 * np.abs(gain).max()  # (H, W)
    if not shown.any():
        return whole, None
    shares = np.divide(colours - black, gain, out=np.zeros_like(gain), where=np.abs(gain) > 0)  # (3, H, W) in 0..1
    left, right = _ends(shares[0], shown, picture.width)
    top, bottom = _ends(shares[1].T, shown.T, picture.height)
    return (left, top, right, bottom), (gain.shape[2], gain.shape[1])


def _first_view(pixel_values: Tensor) -> np.ndarray:
    return np.asarray(pixel_values.flatten(0, -4)[0].detach().float().cpu().numpy(), dtype=np.float64)  # (3, H, W)


def _ends(shares: np.ndarray, shown: np.ndarray, side: int) -> tuple[float, float]:
    """Left and right edge of a view in the picture's pixels; beyond the picture where it is padded.

    shares: (rows, columns), position in the picture, from 0 for its first pixel to 1 for its last   shown: (rows,
    columns) bool, whether a pixel is of the picture   side: of the picture
    """
    columns = np.flatnonzero(shown.mean(0) > 0.5 * shown.mean(0).max())
    inner = columns[len(columns) // 10 : len(columns) - len(columns) // 10]  # resampling bends the edges
    weights = shown[:, inner]
    places = (shares[:, inner] * weights).sum(0) / weights.sum(0) * (side - 1) + 0.5
    if len(inner) < 2 or side < 2:
        return 0.0, float(side)
    slope, start = np.polyfit(inner + 0.5, places, 1)
    first, last = float(start), float(start + slope * shares.shape[1])
    # within a pixel of the view, or a step of the colours, the edge is the picture's own
    near = max(1.0, abs(float(slope)), side / 255)
    return (0.0 if abs(first) < near else first), (float(side) if abs(last - side) < near else last)


def what_is_seen(region: Region, view: tuple[int, int] | None, size: tuple[int, int], views: int) -> str:
    """A sentence if the model does not see all of a picture of this size, or sees it out of proportion; else empty."""
    if views > 1:
        return f"The model sees {views} views of the picture; the kept tokens of the first are drawn and listed."
    left, top, right, bottom = region
    inside = max(0.0, left), max(0.0, top), min(float(size[0]), right), min(float(size[1]), bottom)
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    if width < 0.99 * size[0] or height < 0.99 * size[1]:
        middle = all(abs(a + b - side) <= 0.02 * side for a, b, side in zip(region[:2], region[2:], size, strict=True))
        return (
            f"The model sees {'the middle' if middle else 'a part'} of the picture, {width:.0f} x {height:.0f} of its "
            f"{size[0]} x {size[1]} pixels."
        )
    if view is not None:
        squashed = (view[0] / (right - left)) / (view[1] / (bottom - top))
        if abs(squashed - 1) > 0.02:
            own, seen = f"{size[0]} x {size[1]}", f"{view[0]} x {view[1]}"
            return f"The model sees the whole picture, squashed from {own} to {seen} pixels."
    return ""


def require_picture_path(path: Path) -> None:
    """Raise ValueError unless a picture can be written to `path`, by its suffix."""
    from PIL import Image

    Image.init()
    suffix = path.suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise ValueError(f"--picture: {path} must end in .png, .jpg or another picture format's suffix.")
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), format=Image.registered_extensions()[suffix])
    except Exception as error:  # formats for few colours, or that need a program
        raise ValueError(f"--picture: no photograph can be written as {suffix}; use .png or .jpg.") from error
    if path.is_dir():
        raise ValueError(f"--picture: {path} is a folder; the name of a file is needed.")


def save_picture(picture: Image, path: Path) -> None:
    """Write the picture in the format of the suffix; the file appears only when it is complete."""
    from PIL import Image

    buffer = io.BytesIO()
    picture.save(buffer, format=Image.registered_extensions()[path.suffix.lower()])
    write_atomic(path, buffer.getvalue())
