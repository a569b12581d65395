"""Contact sheets of a trade-off: a file a picture, of the picture as the tower saw it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from salience.core.progress import ProgressBars
from salience.lab.evaluate.picture_tasks import PictureTask
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff import contact_sheets
from salience.lab.tradeoff.config import TradeoffConfig
from salience.lab.tradeoff.contact_sheets import as_seen, save_contact_sheets, save_sheets
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.vlm.families import adapter_for
from salience.vlm.methods import method_class
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


def context_of(model: Any, processor: Any, config: TradeoffConfig, out: Path | None) -> RunContext:
    return RunContext(
        adapter=adapter_for(model), processor=processor, name="tiny", config=config, cache=ResultCache(None, {}),
        bars=ProgressBars(), out=out,
    )  # fmt: skip


def test_the_sheets_of_a_tradeoff(tiny_llava: Any, tiny_processor: Any, tmp_path: Path) -> None:
    """The first pictures, the methods in the order they were named; nothing where nothing is asked for."""
    model, processor = tiny_llava(side=84, layers=3), tiny_processor(84)
    sample = SimpleNamespace(image=Image.new("RGB", (84, 84), (200, 10, 40)), question="how many digits ?")
    task = PictureTask(groups=[[sample]] * 3, baselines={}, layout="", blind={})
    methods = [
        MethodUnderTest(name=name, seed=seed, method=method_class(name)(), cost=name)
        for name, seed in (("cls-attention", 0), ("divprune", 0), ("divprune", 1))
    ]
    asked = TradeoffConfig(keeps=(0.25,), methods=("divprune", "cls-attention"), save_pictures=2)
    context = context_of(model, processor, asked, tmp_path)
    written = save_contact_sheets(context, task, methods)
    assert written == ["pictures/picture_0.png", "pictures/picture_1.png"]
    with Image.open(tmp_path / written[0]) as sheet:
        assert 2 * 160 < sheet.height < 3 * 240 + 120  # a row for each method, of several seeds for the first
    none = [replace(asked, save_pictures=0), replace(asked, keeps=(1,))]
    for config, out in (*((config, tmp_path) for config in none), (asked, None)):
        assert save_contact_sheets(context_of(model, processor, config, out), task, methods) == []


def test_methods_come_in_the_order_they_were_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(
        contact_sheets, "save_sheets", lambda model, processor, pictures, *a, **k: drawn.extend(pictures[0][2])
    )
    config = TradeoffConfig(keeps=(0.25,), methods=("tome", "cls-attention", "oracle"), save_pictures=1)
    task = PictureTask(groups=[[SimpleNamespace(image=None, question="")]], baselines={}, layout="", blind={})
    methods = [
        MethodUnderTest(name=name, seed=0, method=ToMe(), cost=name) for name in ("oracle", "cls-attention", "tome")
    ]
    context = SimpleNamespace(
        config=config, out=tmp_path, bars=ProgressBars(), adapter=SimpleNamespace(model=None), processor=None
    )
    contact_sheets.save_contact_sheets(cast("RunContext", context), task, methods)
    assert drawn == ["tome", "cls-attention", "oracle"]
