"""Contact sheets of a trade-off: the tokens that each method kept of a picture at each ratio, one file a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from salience.core.files import write_atomic
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.tradeoff.config import DEFAULT_METHODS, ORACLE_QUESTION
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.vlm.contact_sheet import contact_sheet
from salience.vlm.families import adapter_for
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.trace import ImageTrace

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 240  # pixels of a panel: ten for each of 24 cells


@torch.no_grad()
def save_contact_sheets(
    context: RunContext, generate: GenerateEvaluator, methods: Sequence[MethodUnderTest]
) -> list[str]:
    """Write `<out>/pictures/picture_<number>.png` for the first pictures, each with its first question.

    Of several seeds the first is drawn, the methods in the order in which they were named.

    Returns: the paths within `out`; none without a folder or a ratio below 1
    """
    config = context.config
    shown = generate.groups[: config.save_pictures]
    if context.out is None or not shown or not config.pruned:
        return []
    first = {method.name: method.method for method in reversed(methods) if method.name != ORACLE_QUESTION}
    names = [name for name in dict.fromkeys((*(config.methods or ()), *DEFAULT_METHODS)) if name in first]
    written = []
    with context.bars.bar("contact sheets", len(shown)) as tick:
        for number, (sample, *_) in enumerate(shown):
            inputs = generate.inputs(sample.image, [sample.question])
            traces = {
                name: {f"keep {keep:g}": _trace(generate, inputs, first[name], keep, number) for keep in config.pruned}
                for name in names
            }
            seen = as_seen(generate.model, context.processor, inputs, sample.image)
            stream = io.BytesIO()
            contact_sheet(seen, traces, title=sample.question, side=_SIDE).save(stream, format="PNG")
            written.append(f"pictures/picture_{number}.png")
            write_atomic(context.out / written[-1], stream.getvalue())
            tick()
    return written


def _trace(
    generate: GenerateEvaluator, inputs: Mapping[str, Any], method: Method, keep: float, picture: int
) -> ImageTrace:
    """Of the picture's first view, the whole picture where a family also cuts it up."""
    with generate.pruned(method, Budget(keep=keep), picture) as pruned:
        assert pruned is not None  # there is a method
        generate.model(**inputs)
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
