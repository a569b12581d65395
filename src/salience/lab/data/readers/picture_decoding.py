"""Decoding of pictures that users hand over."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SIDE = 20_000  # pixels; decoding a wider or taller picture takes gigabytes
LARGEST_AREA = 178_956_970  # pixels; above that Pillow itself reports a decompression bomb
LONGEST_STRIP = 200  # longer side over shorter; scaling a thinner strip to 336 pixels would take gigabytes
_RUNS_PROGRAMS = {"EPS", "WMF"}  # Pillow lets another program draw these formats


def open_picture(path: str | Path, note: Callable[[str], None] | None = None) -> Image:
    """Return the picture in `path` as RGB, upright, with 8 bits a channel.

    Transparent parts become white. Grey values of 16 bits or in floating point are scaled to 8 bits. The EXIF
    orientation is applied. The first picture of an animation or of several pages is used.

    Args:    note: called with one sentence where only the first of several pictures is used
    Raises:  ValueError, one sentence, where there is no such file, it is no picture, it is broken or cut off, it is
             20,000 pixels or more on a side, more than 178,956,970 pixels in all, or a strip thinner than 1 to 200
    """
    path = Path(path)
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise ValueError(f"image: there is no file {path}.") from None
    except OSError as error:
        raise ValueError(f"image: {path} can't be read ({error.strerror}).") from error
    if not regular:
        raise ValueError(f"image: {path} is not a file; a picture such as a PNG or JPEG is needed.")
    with _opened(path) as picture:
        width, height = picture.size
        if max(width, height) >= LARGEST_SIDE or width * height > LARGEST_AREA:
            raise ValueError(_too_large(path, f"is {width:,} x {height:,} pixels"))
        if max(width, height) > LONGEST_STRIP * min(width, height):
            raise ValueError(
                f"image: {path} is {width:,} x {height:,} pixels; a strip thinner than 1 to {LONGEST_STRIP} is refused."
            )
        if note is not None and picture.format != "MPO" and getattr(picture, "is_animated", False):
            note(f"{path.name} has {getattr(picture, 'n_frames', 'several')} frames: the first one is used.")
        try:
            picture.load()
        except MemoryError:
            raise
        except Exception as error:  # decoders raise different errors for a broken file: OSError, SyntaxError, ...
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ValueError(f"image: {path} is broken or cut off ({reason}).") from error
        return _as_rgb(picture)


def _opened(path: Path) -> Image:
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large but allowed pictures and odd metadata
            picture = Image.open(path)
    except Image.DecompressionBombError:
        raise ValueError(_too_large(path, "is far too many pixels")) from None
    except PermissionError:
        raise ValueError(f"image: {path} can't be read (permission denied).") from None
    except Exception as error:  # a wrong header makes the plugins raise errors of many types
        raise ValueError(f"image: {path} is not a picture in a known format such as PNG or JPEG.") from error
    if picture.format in _RUNS_PROGRAMS:
        picture.close()
        raise ValueError(f"image: {path} is a drawing ({picture.format}); save it as a PNG or JPEG first.")
    return picture


def _too_large(path: Path, size: str) -> str:
    return (
        f"image: {path} {size}; less than {LARGEST_SIDE:,} on a side and at most {LARGEST_AREA:,} in all are allowed."
    )


def _as_rgb(picture: Image) -> Image:
    """Return the picture upright, with 8 bits a channel and white in place of transparent parts."""
    from PIL import Image, ImageOps

    with suppress(Exception):  # the pixels behind a damaged EXIF block are still good
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_eight_bits(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _to_eight_bits(picture: Image) -> Image:
    """Scale grey values by their range. Pillow would clip them at 255, and a 16-bit picture would turn white."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0.0, neginf=0.0)
    brightest = float(values.max())
    if picture.mode == "F" and brightest <= 1.0:
        full = 1.0
    elif picture.mode in ("I", "F") and brightest <= 255:
        full = 255.0
    else:
        full = max(65535.0, brightest)  # I;16 always; I and F where a value exceeds 8 bits
    return Image.fromarray((values.clip(0.0, None) * (255.0 / full) + 0.5).astype(np.uint8))
