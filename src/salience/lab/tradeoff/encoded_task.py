"""Task with encoded pictures: the tokens that stay of them, and the references that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from salience.core.types import VisualGrid
from salience.lab.data.scene_pictures import SIDE
from salience.lab.data.scenes import Sample
from salience.lab.evaluate.encoded_pictures import EncodedPictures, encode_pictures, load_pictures
from salience.lab.evaluate.picture_tasks import PictureTask
from salience.lab.evaluate.probe import majority_line, pair_labels
from salience.lab.evaluate.ranking import RankedPictures, merged_tokens
from salience.lab.fit.attention_source import REFERENCE
from salience.lab.fit.question_attention import text_saliency
from salience.lab.tradeoff.config import reads_keys
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.methods_under_test import MethodUnderTest, oracle_for
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.oracle import Oracle


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptTokens:
    """Tokens that stay of encoded pictures.

    which: numbers of the pictures, of which one may come several times   kept: for each (k,) rising
    merged: for each (k, d_llm), the tokens after the projector where some were merged
    """

    pictures: EncodedPictures
    which: Sequence[int]
    kept: Sequence[Tensor]
    merged: Sequence[Tensor] | None = None

    def projected(self) -> list[Tensor]:
        """(k, d_llm) float32 for each picture, on the CPU: the tokens after the projector."""
        if self.merged is not None:
            return [tokens.float().cpu() for tokens in self.merged]
        rows = zip(self.which, self.kept, strict=True)
        return [self.pictures.projected[picture, kept].float().cpu() for picture, kept in rows]


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedTask:
    """Test pictures, and training pictures for the probe. Pictures know the boxes of their items."""

    test: RankedPictures
    train: RankedPictures | None

    @cached_property
    def attention(self) -> Tensor:
        """(P, n): the unpruned model's text-to-image attention, the reference of `saliency_mass`.

        Of every layer and every token of the question, mean over heads; normalised for each question, then averaged.
        """
        return text_saliency(self.test.adapter, self.test.pictures, [REFERENCE])[0]

    @cached_property
    def on_items(self) -> list[Tensor]:
        """For each test picture (n,) bool: the tokens on items."""
        pictures = self.test.pictures
        return [tokens_in_boxes(group[0].boxes, pictures.grid) for group in pictures.samples]

    @cached_property
    def test_labels(self) -> Tensor:
        """See `pair_labels`."""
        return pair_labels([group[0].items for group in self.test.pictures.samples])

    @cached_property
    def train_labels(self) -> Tensor | None:
        """See `pair_labels`; None without training pictures."""
        return None if self.train is None else pair_labels([group[0].items for group in self.train.pictures.samples])

    @cached_property
    def _train_oracle(self) -> Oracle:
        assert self.train is not None  # the caller has it
        return oracle_for(self.train.pictures.samples)

    @property
    def probe_majority(self) -> float | None:
        """The probe's majority baseline."""
        return None if self.train_labels is None else majority_line(self.train_labels, self.test_labels)

    def kept(self, method: MethodUnderTest | None, keep: float) -> tuple[KeptTokens, KeptTokens | None]:
        """Return what a method keeps of the test and of the training pictures; without a method all tokens."""
        train = None if self.train is None else self._kept(self.train, method, keep)
        return self._kept(self.test, method, keep), train

    def _kept(self, ranked: RankedPictures, method: MethodUnderTest | None, keep: float) -> KeptTokens:
        pictures, which = ranked.pictures, range(len(ranked))
        if method is None:
            return KeptTokens(pictures=pictures, which=which, kept=ranked.every())
        own = isinstance(method.method, Oracle) and ranked is self.train
        selections = ranked.ranking(self._train_oracle if own else method.method).selections(Budget(keep=keep))
        kept = [selection.kept for selection in selections]
        merged = merged_tokens(ranked.adapter, pictures, selections)
        return KeptTokens(pictures=pictures, which=which, kept=kept, merged=merged)


def encode_task(context: RunContext, task: PictureTask, train: EncodedPictures | None) -> EncodedTask:
    """Encode the test pictures, and training pictures where there are none yet and the probe needs them."""
    config = context.config
    keys = reads_keys(config)

    def encoded(groups: Sequence[Sequence[Sample]], split: str) -> RankedPictures:
        with context.bars.bar(f"encoding {split} pictures", len(groups)) as tick:
            pictures = encode_pictures(context.adapter, context.processor, groups, keys=keys, tick=tick)
        return RankedPictures(context.adapter, pictures, positions=config.positions)

    test = encoded(task.groups, "test")
    learnt = None if train is None else RankedPictures(context.adapter, train, positions=config.positions)
    if train is None and config.probe_pictures > 0:
        groups = load_pictures(
            config.task, split="train", pictures=config.probe_pictures, questions=config.questions, seed=config.seed
        )
        learnt = encoded(groups, "train")
    return EncodedTask(test=test, train=learnt)


def tokens_in_boxes(boxes: Sequence[Sequence[float]], grid: VisualGrid) -> Tensor:
    """(n,) bool: whether a token's middle lies in one of the boxes (x0, y0, x1, y1), in pixels of a scene."""
    x = (torch.arange(grid.columns) + 0.5) * (SIDE / grid.columns)
    y = (torch.arange(grid.rows) + 0.5) * (SIDE / grid.rows)
    inside = torch.zeros(grid.rows, grid.columns, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None]
    return inside.reshape(-1)
