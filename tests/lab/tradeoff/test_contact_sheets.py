"""Contact sheets of a trade-off: a file a picture, of the picture as the tower saw it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from salience.core.progress import ProgressBars
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff import contact_sheets
from salience.lab.tradeoff.config import TradeoffConfig
from salience.lab.tradeoff.contact_sheets import as_seen, save_contact_sheets
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.vlm.families import adapter_for
from salience.vlm.methods.registry import method_class
from salience.vlm.methods.tome import ToMe


def test_the_picture_is_cropped_as_the_processor_crops(tiny_llava: Any, tiny_processor: Any) -> None:
    """A wide picture, its middle red: the tower never sees its blue ends."""
    model, processor = tiny_llava(side=84), tiny_processor(84)
    pixels = np.zeros((84, 252, 3), dtype=np.uint8)
    pixels[:, :, 2], pixels[:, 84:168] = 255, (255, 0, 0)
    inputs = processor(images=Image.fromarray(pixels), text="USER : <image>", return_tensors="pt")
    shown = np.asarray(as_seen(model, processor, inputs, Image.fromarray(pixels)))
    assert shown.shape == (84, 84, 3)
    assert np.abs(shown.astype(int) - (255, 0, 0)).max() <= 1  # a rounding there and back


def sample_of(colour: tuple[int, int, int]) -> Any:
    return SimpleNamespace(image=Image.new("RGB", (84, 84), colour), question="how many digits ?")


def context_of(model: Any, processor: Any, config: TradeoffConfig, out: Path | None) -> RunContext:
    return RunContext(
        adapter=adapter_for(model), processor=processor, name="tiny", config=config, cache=ResultCache(None, {}),
        bars=ProgressBars(), out=out,
    )  # fmt: skip


def test_the_sheets_of_a_tradeoff(tiny_llava: Any, tiny_processor: Any, tmp_path: Path) -> None:
    """The first pictures, the methods in the order they were named; nothing where nothing is asked for."""
    model, processor = tiny_llava(side=84, layers=3), tiny_processor(84)
    groups: Any = [[sample_of((200, 10 * number, 40))] for number in range(3)]
    methods = [
        MethodUnderTest(name=name, seed=seed, method=method_class(name)())
        for name, seed in (("cls-attention", 0), ("divprune", 0), ("divprune", 1))
    ]
    asked = TradeoffConfig(keeps=(0.25,), methods=("divprune", "cls-attention"), save_pictures=2)
    context = context_of(model, processor, asked, tmp_path)
    generate = GenerateEvaluator(model, processor, groups)
    written = save_contact_sheets(context, generate, methods)
    assert written == ["pictures/picture_0.png", "pictures/picture_1.png"]
    assert (tmp_path / written[0]).read_bytes() != (tmp_path / written[1]).read_bytes()
    with Image.open(tmp_path / written[0]) as sheet:
        assert 2 * 160 < sheet.height < 3 * 240 + 120  # a row for each method, of several seeds for the first
    none = [replace(asked, save_pictures=0), replace(asked, keeps=(1,))]
    for config, out in (*((config, tmp_path) for config in none), (asked, None)):
        assert save_contact_sheets(context_of(model, processor, config, out), generate, methods) == []


def test_methods_come_in_the_order_they_were_named(
    tiny_llava: Any, tiny_processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def draw(shown: Image.Image, traces: dict[str, Any], **_: Any) -> Image.Image:
        drawn.extend(traces)
        return shown

    monkeypatch.setattr(contact_sheets, "contact_sheet", draw)
    model, processor = tiny_llava(side=84, layers=3), tiny_processor(84)
    config = TradeoffConfig(keeps=(0.25,), methods=("tome", "cls-attention", "oracle"), save_pictures=1)
    methods = [MethodUnderTest(name=name, seed=0, method=ToMe()) for name in ("oracle", "cls-attention", "tome")]
    generate = GenerateEvaluator(model, processor, [[sample_of((200, 10, 40))]])
    save_contact_sheets(context_of(model, processor, config, tmp_path), generate, methods)
    assert drawn == ["tome", "cls-attention", "oracle"]
