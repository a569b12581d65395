"""Encoded pictures: each picture of a task through the vision tower once, with its questions as ids.

Glossary: P pictures, n visual tokens each, d features wide, d_llm the language model's width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from salience.core.types import TokenContext, VisualGrid
from salience.lab import data
from salience.lab.data.scenes import Sample
from salience.lab.evaluate.prompts import Prompt, encode_prompt
from salience.vlm.families import Adapter


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedPictures:
    """P pictures with their questions.

    samples, prompts: for each picture its questions   features: (P, n, d)   projected: (P, n, d_llm)
    cls_attention: (P, n) float32, or its substitute in a tower without [CLS]; None where neither can be read
    digests: P numbers made of the pixels
    keys: (P, n, heads, d_head) float32, None unless asked for
    """

    samples: Sequence[Sequence[Sample]]
    prompts: Sequence[Sequence[Prompt]]
    features: Tensor
    projected: Tensor
    cls_attention: Tensor | None
    digests: Sequence[int]
    grid: VisualGrid
    keys: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def context(self, picture: int) -> TokenContext:
        """Return the input of a pruning method for one picture, every optional field filled."""
        return TokenContext(
            features=self.features[picture],
            grid=self.grid,
            image_index=picture,
            cls_attention=None if self.cls_attention is None else self.cls_attention[picture],
            keys=None if self.keys is None else self.keys[picture],
            projected=self.projected[picture],
            digest=self.digests[picture],
        )

    def first(self, pictures: int) -> EncodedPictures:
        """Return the first so many pictures alone."""
        each = {name: value for name, value in vars(self).items() if name != "grid" and value is not None}
        return replace(self, **{name: value[:pictures] for name, value in each.items()})


def load_pictures(task: str, *, split: str, pictures: int, questions: int, seed: int = 0) -> list[list[Sample]]:
    """The first `pictures` pictures of a split, each with its (at most `questions`) questions.

    Raises: ValueError for an unknown task or split, or counts below 1
    """
    if pictures < 1:
        raise ValueError(f"pictures must be at least 1, not {pictures}.")
    # A picture gives at most `questions`, so that many samples reach at least that many pictures; asking for one
    # picture more keeps the cut at the end of the list out of the last one.
    samples = data.load(task, split=split, n=(pictures + 1) * questions, seed=seed, questions=questions)
    groups = [list(group) for _, group in itertools.groupby(samples, key=lambda sample: sample.picture)]
    return groups[:pictures]


@torch.no_grad()
def encode_pictures(
    adapter: Adapter,
    processor: Any,
    groups: Sequence[Sequence[Sample]],
    *,
    batch: int = 8,
    keys: bool = False,
    tick: Callable[[], object] | None = None,
) -> EncodedPictures:
    """Encode each picture once.

    `keys`: of the tower's attention too, for methods that read them. `tick` is called after each picture, for a
    progress bar.
    """
    features, projected, attention, grid = [], [], [], None
    digests: list[int] = []
    read: list[Tensor] = []
    for start in range(0, len(groups), batch):
        images = [group[0].image for group in groups[start : start + batch]]
        pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        encoded = adapter.encode(pixels.to(adapter.device, adapter.model.dtype))
        features.append(encoded.features)
        projected.append(adapter.project(encoded.features))
        if adapter.tower_attention is not None:
            attention.append(encoded.cls_attention())
            if keys:
                read.extend(encoded.keys())
        digests.extend(encoded.digest(index) for index in range(len(images)))
        grid = encoded.grid
        for _ in images:
            if tick is not None:
                tick()
    if grid is None:
        raise ValueError("groups must hold at least one picture.")
    return EncodedPictures(
        samples=groups,
        prompts=[
            [
                encode_prompt(processor, sample.question, sample.answer, image_token_id=adapter.image_token_id)
                for sample in group
            ]
            for group in groups
        ],
        features=torch.cat(features),
        projected=torch.cat(projected),
        cls_attention=torch.cat(attention) if attention else None,
        digests=digests,
        grid=grid,
        keys=torch.stack(read) if read else None,
    )
