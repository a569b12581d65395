"""Pictures of any family: the views that processor and vision tower make, with the questions as whole prompts.

Each question runs by itself, in batches, through the model's own forward. The questions share the vision tower's work.
Glossary: Q questions of a picture; views with n_i tokens each, n in all; B rows of a batch; T columns of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salience.core.types import Selection
from salience.lab.data.scenes import Sample
from salience.lab.evaluate.prompts import prompt_inputs
from salience.lab.evaluate.teacher_forcing import forced_logits
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.pruned_inputs import model_arguments, pruned_inputs, slots

#: Questions of a picture that run together.
BATCH = 8
_REPLACED = frozenset({"input_ids", "attention_mask", "position_ids", "mm_encoder_outputs"})


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureViews:
    """One encoded picture. batches: the model's arguments for its questions, several rows each, without the pixels
    answers: of the Q questions"""

    encoded: EncodedViews
    batches: Sequence[Mapping[str, Any]]
    answers: Sequence[str]


@torch.no_grad()
def view_picture(adapter: Adapter, processor: Any, group: Sequence[Sample], *, questions: bool = True) -> PictureViews:
    """Encode a picture and its questions.

    Args:    group: the samples of one picture   questions: False to encode the picture alone
    Raises:  ValueError where the processor's image tokens are not those of the picture's views
    """
    image = group[0].image

    def inputs(part: Sequence[Sample]) -> dict[str, Any]:
        made = prompt_inputs(processor, [image] * len(part), [sample.question for sample in part])
        return dict(made.to(adapter.device, dtype=adapter.model.dtype))

    one = inputs(group[:1])
    encoded = adapter.encode(**{name: value for name, value in one.items() if name in adapter.image_arguments})
    parts = [group[start : start + BATCH] for start in range(0, len(group) if questions else 0, BATCH)]
    batches = [{k: v for k, v in inputs(part).items() if k != "pixel_values"} for part in parts]
    return PictureViews(encoded=encoded, batches=batches, answers=[sample.answer for sample in group])


def arguments(
    adapter: Adapter, picture: PictureViews, batch: Mapping[str, Any], kept: Sequence[Selection], *, generating: bool
) -> dict[str, Any]:
    """Return the arguments of the pruned forward, or of `generate`. batch: one of `picture.batches`"""
    rows = len(batch["input_ids"])
    mask = batch["attention_mask"]
    pruned = pruned_inputs(
        adapter, _repeated(picture.encoded, rows), [*kept] * rows, batch["input_ids"], mask,
        adapter.position_ids(batch, mask, generating=generating), side="left",
    )  # fmt: skip
    adapter.set_rope_deltas(pruned.deltas)
    options = {name: value for name, value in batch.items() if name not in adapter.image_arguments | _REPLACED}
    return adapter.forward_layout(model_arguments(adapter, pruned, options))


def token_columns(adapter: Adapter, picture: PictureViews, ids: Tensor) -> Tensor:
    """Return (B, n): the columns of all views' tokens in each row of ids (B, T), without newline tokens.

    Raises:  ValueError where the rows' image tokens are not those of the views
    """
    slot = slots(adapter, _repeated(picture.encoded, len(ids)), ids, "image")
    columns = torch.nonzero(slot)[:, 1].view(len(ids), -1)  # (B, places)
    views = zip(picture.encoded.breaks, picture.encoded.views, strict=True)
    token = [torch.ones(len(v), dtype=torch.bool) if breaks is None else ~breaks.cpu() for breaks, v in views]
    return columns[:, torch.cat(token).to(columns.device)]


@torch.no_grad()
def answered(
    adapter: Adapter, tokenizer: Any, picture: PictureViews, selections: Sequence[Selection]
) -> tuple[list[bool], list[float]]:
    """Return for each question whether every token of its answer is the likeliest, and their mean log-probability.

    Teacher forcing: each token is predicted from the true ones before it. The end token is left out, because families
    end an answer in different ways.
    """
    right: list[bool] = []
    likely: list[float] = []
    for batch in picture.batches:
        rows = len(batch["input_ids"])
        answers = picture.answers[len(right) : len(right) + rows]
        ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        longest = max(map(len, ids))
        forced = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in ids])
        options = arguments(adapter, picture, batch, selections, generating=True)
        log_probs = forced_logits(adapter.model, options, forced).log_softmax(-1).cpu()  # (B, A, V)
        for row, each in zip(log_probs, ids, strict=True):
            wanted = torch.tensor(each)
            right.append(bool((row[: len(each)].argmax(-1) == wanted).all()))
            likely.append(float(row[: len(each)].gather(1, wanted[:, None]).mean()))
    return right, likely


def _repeated(encoded: EncodedViews, rows: int) -> EncodedViews:
    """Repeat the picture for each row."""
    pictures = 1 + max(encoded.pictures)
    return EncodedViews(
        views=[*encoded.views] * rows,
        grids=[*encoded.grids] * rows,
        pixels=[*encoded.pixels] * rows,
        project=encoded.project,
        project_all=lambda: [*encoded.projected()] * rows,
        pictures=[row * pictures + picture for row in range(rows) for picture in encoded.pictures],
        breaks=[*encoded.breaks] * rows,
        newline=encoded.newline,
        deepstack=[[*layer] * rows for layer in encoded.deepstack],
    )
