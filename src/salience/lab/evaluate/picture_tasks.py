"""Pictures and questions of a task, with the answers that need no picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salience.lab.data import scenes, vqa
from salience.lab.data.vqa.layouts import easy_vqa
from salience.lab.evaluate.encoded_pictures import load_pictures
from salience.lab.evaluate.marks import mark

#: Answers without the picture: of a model that sees the question alone, and always the most frequent answer.
QUESTION_ONLY, MAJORITY = "question only", "majority answer"


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTask:
    """P pictures with Q questions.

    groups: for each picture its samples   baselines: for the record's config   layout: of a folder
    blind: QUESTION_ONLY, MAJORITY -> (Q,) marks of answers without the picture
    has_boxes: whether samples name the boxes of the items in their picture, and have one exact answer
    """

    groups: Sequence[Sequence[Any]]
    baselines: Mapping[str, Any]
    layout: str
    blind: Mapping[str, Sequence[float]]
    has_boxes: bool = False

    @property
    def samples(self) -> list[Any]:
        """The Q samples."""
        return [sample for group in self.groups for sample in group]

    @property
    def picture(self) -> Tensor:
        """(Q,): the number of each question's picture."""
        return torch.tensor([number for number, group in enumerate(self.groups) for _ in group])

    @property
    def kinds(self) -> list[str]:
        """(Q,): the kind of each question, as the accuracy columns spell it."""
        return [column_kind(sample.kind) for sample in self.samples]


def picture_task(task: str, *, pictures: int, questions: int, seed: int) -> PictureTask:
    """Return the first test pictures of "scenes", or at most `pictures` of a folder, in an order drawn by the seed.

    Args:    questions: at most so many for each picture
    Raises:  ValueError where the task can't be read; see `salience.lab.data.vqa.load_folder`
    """
    if task == "scenes":
        return _scenes(load_pictures("scenes", split="test", pictures=pictures, questions=questions, seed=seed))
    folder = vqa.load_folder(easy_vqa.folder() if task == "easy-vqa" else task.removeprefix("vqa:"))
    groups = [list(group) for _, group in groupby(folder.samples, key=lambda sample: sample.picture)]
    order = np.random.default_rng(seed).permutation(len(groups))[:pictures]
    chosen = [groups[number][:questions] for number in order]
    asked = [sample for group in chosen for sample in group]
    lines = vqa.vqa_baselines(asked, folder.train, mark, pool=folder.samples)
    baselines = {
        "majority_accuracy": sum(lines.majority) / len(asked),
        "question_only_accuracy": sum(lines.question_only) / len(asked),
        "baselines_learnt_from": lines.learnt_from,
    }
    blind = {QUESTION_ONLY: lines.question_only, MAJORITY: lines.majority}
    return PictureTask(groups=chosen, baselines=baselines, layout=folder.layout, blind=blind)


def column_kind(kind: str) -> str:
    """Return a kind of question as the accuracy columns spell it: lower case, words joined by "_"."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in kind.lower()).split())


def _scenes(groups: Sequence[Sequence[Any]]) -> PictureTask:
    samples = [sample for group in groups for sample in group]
    blind = scenes.baselines(samples)
    baselines = {
        "majority_accuracy": blind["majority"]["all"],
        "question_only_accuracy": blind["question_only"]["all"],
        "majority_by_kind": {kind: share for kind, share in blind["majority"].items() if kind != "all"},
        "question_only_by_kind": {kind: share for kind, share in blind["question_only"].items() if kind != "all"},
    }
    without = {QUESTION_ONLY: scenes.question_only(samples), MAJORITY: scenes.majority(samples)}
    return PictureTask(groups=groups, baselines=baselines, layout="scenes", blind=without, has_boxes=True)
