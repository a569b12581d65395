"""Contact sheets of a trade-off: the tokens that each method kept of a picture at each ratio, one file a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from salience.core.files import write_atomic
from salience.lab.evaluate.generate_evaluator import method_for_picture
from salience.lab.evaluate.picture_tasks import PictureTask
from salience.lab.evaluate.prompts import prompt_text
from salience.lab.tradeoff.config import DEFAULT_METHODS, ORACLE_QUESTION
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.vlm.contact_sheet import contact_sheet
from salience.vlm.families import adapter_for
from salience.vlm.methods.base import Method
from salience.vlm.prune import prune
from salience.vlm.trace import ImageTrace

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = "pictures"
_SIDE = 240  # pixels of a panel: ten for each of 24 cells


@torch.no_grad()
def save_sheets(
    model: Any,
    processor: Any,
    pictures: Sequence[tuple[Any, str, Mapping[str, Method]]],
    keeps: Sequence[float],
    out: Path,
    *,
    positions: Any = "auto",
    tick: Callable[[], object] | None = None,
) -> list[str]:
    """Write `<out>/pictures/picture_<number>.png` for each picture; their paths within `out`.

    Args:    pictures: (image, question, name -> method) each; the question is what methods inside the language model
             read   keeps: ratios, those below 1 are drawn   tick: called after each picture
    """
    written = []
    for number, (image, question, methods) in enumerate(pictures):
        inputs = processor(images=image, text=prompt_text(processor, question), return_tensors="pt")
        inputs = inputs.to(model.device, dtype=model.dtype)
        traces = {
            name: {f"keep {keep:g}": _trace(model, inputs, method, keep, positions) for keep in keeps if keep < 1}
            for name, method in methods.items()
        }
        sheet = contact_sheet(as_seen(model, processor, inputs, image), traces, title=question, side=_SIDE)
        stream = io.BytesIO()
        sheet.save(stream, format="PNG")
        written.append(f"{FOLDER}/picture_{number}.png")
        write_atomic(out / written[-1], stream.getvalue())
        if tick is not None:
            tick()
    return written


def _trace(model: Any, inputs: Mapping[str, Any], method: Method, keep: float, positions: Any) -> ImageTrace:
    """Of the picture's first view, the whole picture where a family also cuts it up."""
    with prune(model, method, keep=keep, positions=positions) as pruned:
        model(**inputs)
    return pruned.trace.images[0]


def as_seen(model: Any, processor: Any, inputs: Mapping[str, Any], image: Image) -> Image:
    """The picture as it was cropped and resized for the tower, where its pixels are a picture's; else as it is.

    Qwen's towers take patches, of the whole picture.
    """
    from PIL import Image as Pictures

    adapter = adapter_for(model)
    pixels = adapter.encode(**{k: v for k, v in inputs.items() if k in adapter.image_arguments}).pixels[0]
    if pixels.dim() == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    scale = getattr(processor, "image_processor", None)
    mean, std = (getattr(scale, name, None) for name in ("image_mean", "image_std"))
    if pixels.dim() != 3 or pixels.shape[0] != 3 or mean is None or std is None:
        return image
    shown = pixels.float().cpu() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]  # 0 .. 1
    return Pictures.fromarray((shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def save_contact_sheets(context: RunContext, task: PictureTask, methods: Sequence[MethodUnderTest]) -> list[str]:
    """Write the sheets of the first pictures, with each picture's first question; see `save_sheets`.

    Of several seeds the first is drawn, the methods in the order in which they were named.
    """
    config = context.config
    shown = task.groups[: config.save_pictures]
    if context.out is None or not shown or not config.pruned:
        return []
    first = {method.name: method.method for method in reversed(methods) if method.name != ORACLE_QUESTION}
    names = [name for name in dict.fromkeys((*(config.methods or ()), *DEFAULT_METHODS)) if name in first]
    pictures = [
        (group[0].image, group[0].question, {name: method_for_picture(first[name], number) for name in names})
        for number, group in enumerate(shown)
    ]
    with context.bars.bar("contact sheets", len(shown)) as tick:
        return save_sheets(
            context.adapter.model, context.processor, pictures, config.keeps, context.out, positions=config.positions,
            tick=tick,
        )  # fmt: skip
