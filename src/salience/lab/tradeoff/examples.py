"""Qualitative samples: the same picture and question at every ratio, with what was kept and what was answered.

Not picked by eye: of the first pictures, one question each (the kinds taking turns), half of the samples are the first
that the subject answers rightly at every ratio, half the first that it gets right with all tokens and loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import salience
from salience.core.files import write_atomic
from salience.lab.data.scenes import Sample
from salience.lab.evaluate.packed_answers import answer
from salience.lab.evaluate.prompts import prompt_text
from salience.lab.tradeoff.methods_under_test import Arm, Ranking
from salience.lab.tradeoff.quality import Quality
from salience.vlm.methods.base import Method

_CANDIDATES = 32
MAX_NEW_TOKENS = 8


def choose(quality: Quality, subject: Arm, keeps: Sequence[float], count: int) -> list[tuple[int, int]]:
    """(picture, question) of the samples, half held and half lost where there are so many."""
    pictures = quality.test.first(_CANDIDATES)
    numbers = [picture % len(group) for picture, group in enumerate(pictures.samples)]
    prompts = [[group[number]] for group, number in zip(pictures.prompts, numbers, strict=True)]
    full = quality.full.correct[[quality.before[picture] + number for picture, number in enumerate(numbers)]]
    held = full.clone()
    ranking = Ranking(subject.method(pictures), pictures)
    for keep in keeps:
        kept = ranking.kept(keep)
        held &= answer(quality.adapter, pictures, kept, prompts=prompts, positions=quality.positions).correct
    kept_right = [picture for picture in range(len(pictures)) if held[picture]]
    lost = [picture for picture in range(len(pictures)) if full[picture] and not held[picture]]
    rest = [picture for picture in range(len(pictures)) if not full[picture]]
    first = kept_right[: count - count // 2] + lost[: count // 2]
    spare = [picture for picture in [*kept_right, *lost, *rest] if picture not in first]
    return [(picture, numbers[picture]) for picture in sorted((first + spare)[:count])]


def make_examples(
    quality: Quality,
    processor: Any,
    chosen: Sequence[tuple[int, int]],
    arms: Sequence[Arm],
    keeps: Sequence[float],
    out: Path | None,
) -> list[dict[str, Any]]:
    """The samples, answered by `generate` on the model itself; pictures go to `<out>/figures`."""
    found = []
    for place, (picture, number) in enumerate(chosen):
        sample = quality.test.samples[picture][number]
        pictures = quality.test
        methods = {arm.name: arm.method(pictures) for arm in arms}
        one = {name: for_one(method, picture) for name, method in methods.items()}
        found.append(
            {
                "image": None if out is None else _store(sample, out, place),
                "question": sample.question,
                "answer": sample.answer,
                "full_answer": _generate(quality, processor, sample),
                "kind": sample.kind,
                "boxes": [list(box) for box in sample.boxes],
                "grid": [pictures.grid.rows, pictures.grid.columns],
                "cuts": [
                    {"method": name, "keep": keep, **_cut(quality, processor, sample, method, keep)}
                    for name, method in one.items()
                    for keep in keeps
                ],
            }
        )
    return found


def for_one(method: Method, picture: int) -> Method:
    """The method for a call with that picture alone: an oracle counts pictures from the call's first."""
    from salience.vlm.methods.oracle import Oracle

    if isinstance(method, Oracle):
        return Oracle(boxes=[method.boxes[picture]], image_size=method.image_size)
    return method


def _store(sample: Sample, out: Path, place: int) -> str:
    import io

    stream = io.BytesIO()
    sample.image.save(stream, format="PNG")
    name = f"figures/sample_{place}.png"
    write_atomic(out / name, stream.getvalue())
    return name


def _cut(quality: Quality, processor: Any, sample: Sample, method: Method, keep: float) -> dict[str, Any]:
    with salience.prune(quality.adapter.model, method, keep=keep, positions=quality.positions) as pruned:
        text = _generate(quality, processor, sample)
        return {"kept": pruned.trace.images[0].kept.tolist(), "answer": text}


@torch.no_grad()
def _generate(quality: Quality, processor: Any, sample: Sample) -> str:
    model = quality.adapter.model
    inputs = processor(images=sample.image, text=prompt_text(processor, sample.question), return_tensors="pt")
    inputs = inputs.to(model.device, dtype=model.dtype)
    ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    text: str = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()
