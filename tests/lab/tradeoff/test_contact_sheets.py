"""Contact sheets of a trade-off: a file a picture, of the picture as the tower saw it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from salience.core.progress import progress_bars
from salience.lab.tradeoff.config import TradeoffConfig
from salience.lab.tradeoff.contact_sheets import _as_named, as_seen, save_for, save_sheets
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.tome import ToMe


def test_a_file_a_picture(tiny_llava: Any, tiny_processor: Any, tmp_path: Path) -> None:
    model, processor = tiny_llava(side=84, layers=3), tiny_processor(84)
    methods = {"cls-attention": ClsAttention(), "tome": ToMe()}
    pictures = [(Image.new("RGB", (84, 84), (200, 10 * i, 40)), "how many digits ?", methods) for i in range(2)]
    seen: list[int] = []
    written = save_sheets(model, processor, pictures, [1, 0.5, 0.25], tmp_path, tick=lambda: seen.append(1))
    assert written == ["pictures/picture_0.png", "pictures/picture_1.png"]
    assert len(seen) == 2
    sheets = [Image.open(io.BytesIO((tmp_path / name).read_bytes())) for name in written]
    assert all(sheet.width > 3 * 160 and sheet.height > 2 * 160 for sheet in sheets)  # scores make a third column
    assert sheets[0].tobytes() != sheets[1].tobytes()


def test_the_picture_is_cropped_as_the_processor_crops(tiny_llava: Any, tiny_processor: Any) -> None:
    """A wide picture, its middle red: the tower never sees its blue ends."""
    model, processor = tiny_llava(side=84), tiny_processor(84)
    pixels = np.zeros((84, 252, 3), dtype=np.uint8)
    pixels[:, :, 2], pixels[:, 84:168] = 255, (255, 0, 0)
    inputs = processor(images=Image.fromarray(pixels), text="USER : <image>", return_tensors="pt")
    shown = np.asarray(as_seen(model, processor, inputs, Image.fromarray(pixels)))
    assert shown.shape == (84, 84, 3)
    assert np.abs(shown.astype(int) - (255, 0, 0)).max() <= 1  # a rounding there and back


def test_what_a_tradeoff_asks_for(tiny_llava: Any, tiny_processor: Any, tmp_path: Path) -> None:
    """The first pictures, the methods that are encoded and those made by name; nothing where nothing is asked for."""
    model, processor = tiny_llava(side=84, layers=3), tiny_processor(84)
    sample = SimpleNamespace(image=Image.new("RGB", (84, 84), (200, 10, 40)), question="how many digits ?")
    groups, known = [[sample]] * 3, {"cls-attention": [ClsAttention()] * 2}
    asked = TradeoffConfig(keeps=(0.25,), methods=("cls-attention", "divprune"), save_pictures=2)
    with progress_bars(quiet=True) as bars:
        written = save_for(model, processor, asked, groups, known, tmp_path, bars)
        assert written == ["pictures/picture_0.png", "pictures/picture_1.png"]
        with Image.open(tmp_path / written[0]) as sheet:
            assert sheet.height > 2 * 160  # a row for each method
        assert save_for(model, processor, replace(asked, save_pictures=0), groups, known, tmp_path, bars) == []
        assert save_for(model, processor, replace(asked, keeps=(1,)), groups, known, tmp_path, bars) == []
        assert save_for(model, processor, asked, groups, known, None, bars) == []


def test_methods_come_in_the_order_they_were_asked_for() -> None:
    config = TradeoffConfig(keeps=(0.25,), methods=("tome", "cls-attention"))
    known = {"oracle": ClsAttention(), "cls-attention": ClsAttention(), "tome": ToMe()}
    assert list(_as_named(config, known)) == ["tome", "cls-attention", "oracle"]
