"""The pictures and questions that a trade-off asks, whatever task they are of, with their baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from salience.lab.data import scenes, vqa
from salience.lab.data.vqa.layouts import easy_vqa
from salience.lab.evaluate.encoded_pictures import load_pictures
from salience.lab.evaluate.generate_evaluator import score
from salience.lab.tradeoff.config import TradeoffConfig
from salience.lab.tradeoff.differences import MAJORITY, QUESTION_ONLY


@dataclass(frozen=True, kw_only=True)
class PictureTask:
    """groups: for each picture its samples   baselines: of the record's config   layout: which one a folder has
    blind: QUESTION_ONLY, MAJORITY -> what answering without the picture gets on each question, in the groups' order
    """

    groups: Sequence[Sequence[Any]]
    baselines: Mapping[str, Any]
    layout: str
    blind: Mapping[str, Sequence[float]]


def picture_task(config: TradeoffConfig) -> PictureTask:
    """The pictures that `config` asks for: of a folder as many as there are, at most, in an order drawn by the seed.

    Raises: ValueError where the task can't be read; see `salience.lab.data.vqa.load_folder`
    """
    if config.task == "scenes":
        return _scenes(config)
    folder = easy_vqa.folder() if config.task == "easy-vqa" else config.task.removeprefix("vqa:")
    task = vqa.load_folder(folder)
    groups = [list(group) for _, group in groupby(task.samples, key=lambda sample: sample.picture)]
    order = np.random.default_rng(config.seed).permutation(len(groups))[: config.pictures]
    chosen = [groups[number][: config.questions] for number in order]
    asked = [sample for group in chosen for sample in group]
    lines = vqa.vqa_baselines(asked, task.train, score, pool=task.samples)
    baselines = {
        "majority_accuracy": sum(lines.majority) / len(asked),
        "question_only_accuracy": sum(lines.question_only) / len(asked),
        "baselines_learnt_from": lines.learnt_from,
    }
    blind = {QUESTION_ONLY: lines.question_only, MAJORITY: lines.majority}
    return PictureTask(groups=chosen, baselines=baselines, layout=task.layout, blind=blind)


def blind_scenes(samples: Sequence[Any]) -> dict[str, Sequence[float]]:
    """`PictureTask.blind` of questions about scenes."""
    return {QUESTION_ONLY: scenes.question_only(samples), MAJORITY: scenes.majority(samples)}


def _scenes(config: TradeoffConfig) -> PictureTask:
    groups = load_pictures(
        "scenes", split="test", pictures=config.pictures, questions=config.questions, seed=config.seed
    )
    samples = [sample for group in groups for sample in group]
    blind = scenes.baselines(samples)
    baselines = {
        "majority_accuracy": blind["majority"]["all"],
        "question_only_accuracy": blind["question_only"]["all"],
        "majority_by_kind": {kind: share for kind, share in blind["majority"].items() if kind != "all"},
        "question_only_by_kind": {kind: share for kind, share in blind["question_only"].items() if kind != "all"},
    }
    return PictureTask(groups=groups, baselines=baselines, layout="scenes", blind=blind_scenes(samples))
