"""Any picture a user may hand over opens as upright 8-bit RGB; what is no picture is refused in one sentence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from salience.lab.data.readers.picture_decoding import open_picture

SIZE = (24, 16)


def gradient() -> Image.Image:
    """Red grows to the right, green downwards: says at once whether a picture is upright and its channels in order."""
    x, y = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(0, 255, SIZE[1]))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], -1).astype(np.uint8))


def far(a: Image.Image, b: Image.Image) -> float:
    assert a.mode == b.mode == "RGB"
    assert a.size == b.size
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).max())


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "tga"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    gradient().save(tmp_path / f"a.{suffix}")
    assert far(open_picture(tmp_path / f"a.{suffix}"), gradient()) == 0


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.jpg", format="PNG")
    assert far(open_picture(str(tmp_path / "a.jpg")), gradient()) == 0


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    picture = gradient().convert("RGBA")
    picture.paste((255, 0, 0, 0), (0, 0, 12, 16))
    picture.save(tmp_path / "a.png")
    opened = open_picture(tmp_path / "a.png")
    assert opened.getpixel((3, 3)) == (255, 255, 255)
    assert opened.getpixel((20, 3)) == gradient().getpixel((20, 3))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB"])
def test_every_mode_with_and_without_transparency(tmp_path: Path, mode: str) -> None:
    grey = gradient().convert("L")
    picture = grey.convert("1" if mode == "1" else "L").convert(mode) if mode != "RGB" else grey.convert("RGB")
    if (
        mode == "PA"
    ):  # PNG has no such mode; TIFF does not either: a palette with per-entry transparency is its file form
        picture = grey.convert("P")
        picture.save(tmp_path / "a.png", transparency=bytes(range(256)))
    elif mode == "RGB":
        picture.save(tmp_path / "a.png", transparency=(0, 0, 0))
    elif mode in ("1", "L", "P"):
        picture.save(tmp_path / "a.png", transparency=0)
    else:
        picture.save(tmp_path / "a.png")
    opened = open_picture(tmp_path / "a.png")
    assert opened.mode == "RGB"
    assert opened.size == SIZE
    assert len(opened.getcolors(1000) or []) >= (1 if mode == "1" else 8)


def test_a_palette_keeps_its_colours(tmp_path: Path) -> None:
    gradient().quantize(64).save(tmp_path / "a.png")
    # 64 colours for a two-way gradient of 384: neighbours share one, up to an eighth of the range apart
    assert far(open_picture(tmp_path / "a.png"), gradient()) < 48


def test_cmyk_is_not_inverted(tmp_path: Path) -> None:
    gradient().resize((240, 160)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    # JPEG at quality 95 on a smooth gradient: a few grey levels; an inverted picture would be off by 255
    assert far(open_picture(tmp_path / "a.jpg"), gradient().resize((240, 160))) < 24


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, SIZE[0]).astype(np.uint16), (SIZE[1], 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "i.tif")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "f.tif")
    expected = np.repeat(ramp[..., None] / 257.0, 3, axis=-1)
    for name in ("a.png", "a.tif", "i.tif", "f.tif"):
        opened = np.asarray(open_picture(tmp_path / name), dtype=float)
        assert np.abs(opened - expected).max() <= 0.51, name  # rounding to 8 bits is half a level; .01 for float32


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    """Pillow writes no 16-bit RGB, so the file is put together by hand: 2 x 1 pixels, big-endian channels."""
    row = b"\x00" + struct.pack(">6H", 65535, 0, 0, 0, 32896, 65535)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    file = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(file)
    opened = open_picture(tmp_path / "a.png")
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (0, 128, 255)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned left, so that the viewer turns it right
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = gradient().transpose(undo[orientation]) if orientation > 1 else gradient()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert far(open_picture(tmp_path / "a.png"), gradient()) == 0


def test_a_damaged_exif_block_is_overlooked(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert far(open_picture(tmp_path / "a.png"), gradient()) == 0


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_gives_its_first_frame_and_a_note(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", SIZE, (200, 0, 0)), Image.new("RGB", SIZE, (0, 0, 200))
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second, first], **options)
    notes: list[str] = []
    opened = open_picture(tmp_path / f"a.{suffix}", notes.append)
    assert far(opened, first) == 0
    assert len(notes) == 1
    assert "3 frames" in notes[0] and "first" in notes[0]


def test_a_still_gives_no_note(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.gif")
    notes: list[str] = []
    open_picture(tmp_path / "a.gif", notes.append)
    assert notes == []


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ValueError, match="image: ") as caught:
        open_picture(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.png", "there is no file")
    refused(tmp_path, "is not a file")
    (tmp_path / "text.png").write_text("a picture, honestly")
    refused(tmp_path / "text.png", "is not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    refused(tmp_path / "empty.jpg", "is not a picture")
    (tmp_path / "magic.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 64)
    refused(tmp_path / "magic.png")
    refused(tmp_path / "text.png" / "below.png", "can't be read")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif", "ppm"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / f"cut.{suffix}")


def test_a_drawing_that_would_run_a_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    refused(tmp_path / "a.eps", "drawing")


@pytest.mark.parametrize(("size", "words"), [((20_000, 300), "20,000 x 300"), ((300, 20_000), "300 x 20,000")])
def test_a_side_of_20000_pixels_is_refused(tmp_path: Path, size: tuple[int, int], words: str) -> None:
    Image.new("1", size).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", words, "20,000")


def test_the_widest_allowed_picture_opens(tmp_path: Path) -> None:
    Image.new("1", (19_999, 100)).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").size == (19_999, 100)


@pytest.mark.parametrize("side", [15_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    """225 million and 3.6 billion pixels in a file of a hundred bytes."""
    (tmp_path / "a.bmp").write_bytes(
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    refused(tmp_path / "a.bmp", "pixels", "at most")


def test_a_thin_strip_is_refused(tmp_path: Path) -> None:
    Image.new("L", (6_000, 1)).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "strip")
