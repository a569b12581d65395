"""Evaluator for any model family and method: processor, `salience.prune` and `generate`, as a user calls them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salience.lab.evaluate.evaluator import Answers, AnswerSettings, PictureQuestion, Tick
from salience.lab.evaluate.marks import mark
from salience.lab.evaluate.prompts import prompt_inputs
from salience.lab.evaluate.teacher_forcing import loglikelihood
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.oracle import Oracle
from salience.vlm.prune import prune

if TYPE_CHECKING:
    from salience.vlm.handle import Pruned

#: Questions about one picture in a batch.
BATCH = 8
#: Pictures of a part.
PART = 16


class GenerateEvaluator:
    """`Evaluator` through `generate`. groups: for each picture its questions   settings: see `AnswerSettings`"""

    def __init__(
        self,
        model: Any,
        processor: Any,
        groups: Sequence[Sequence[PictureQuestion]],
        settings: AnswerSettings | None = None,
    ) -> None:
        self.model, self.processor, self.groups = model, processor, groups
        self.settings = settings or AnswerSettings()

    @property
    def samples(self) -> list[PictureQuestion]:
        """The Q questions."""
        return [sample for group in self.groups for sample in group]

    def parts(self, method: Method | None) -> list[range]:
        """See `Evaluator.parts`."""
        count = len(self.groups)
        return [range(start, min(start + PART, count)) for start in range(0, count, PART)]

    @torch.no_grad()
    def run(
        self, method: Method | None, budget: Budget, *, part: range | None = None, tick: Tick | None = None
    ) -> Answers:
        """See `Evaluator.run`."""
        texts: list[str] = []
        chosen: list[str | None] = []
        tokens = []
        asked: list[PictureQuestion] = []
        for picture in range(len(self.groups)) if part is None else part:
            group = self.groups[picture]
            with self.pruned(method, budget, picture) as pruned:
                for start in range(0, len(group), BATCH):
                    batch = group[start : start + BATCH]
                    inputs = self.inputs(group[0].image, [sample.question for sample in batch])
                    texts += self.texts(inputs)
                    if start == 0:
                        tokens.append(_tokens_read(inputs, pruned, len(batch), self.model))
                    chosen += self._chosen(inputs, batch)
            asked += group
            if tick is not None:
                tick(1)
        right = [mark(sample, text) for sample, text in zip(asked, texts, strict=True)]
        return Answers(right=tuple(right), tokens=tuple(tokens), texts=tuple(texts), chosen=tuple(chosen))

    @torch.no_grad()
    def check(self, method: Method, budget: Budget) -> str | None:
        """Generate one token for the first question, so that an unsuitable method is refused before hours of work.

        Returns: a clause if another input replaces one, such as received attention for [CLS] attention
        Raises:  ValueError as `salience.prune` does
        """
        sample = self.groups[0][0]
        with self.pruned(method, budget, 0) as pruned:
            assert pruned is not None  # there is a method
            inputs = self.inputs(sample.image, [sample.question])
            self.model.generate(**inputs, max_new_tokens=1, do_sample=False)
            return pruned.substitute

    def inputs(self, image: Any, questions: Sequence[str]) -> dict[str, Any]:
        """Return the model's arguments for questions about one picture."""
        asked = [f"{question} {self.settings.instruction}".strip() for question in questions]
        inputs: dict[str, Any] = prompt_inputs(self.processor, [image] * len(asked), asked)
        return dict(inputs.to(self.model.device, dtype=self.model.dtype))  # type: ignore[attr-defined]

    def pruned(
        self, method: Method | None, budget: Budget, picture: int
    ) -> contextlib.AbstractContextManager[Pruned | None]:
        """Prune calls with that picture while the block runs; without a method nothing is pruned."""
        if method is None:
            return contextlib.nullcontext()
        return prune(
            self.model, _for_picture(method, picture), keep=budget.keep, tokens=budget.tokens, mass=budget.mass,
            min=budget.min, max=budget.max, positions=self.settings.positions,
        )  # fmt: skip

    def texts(self, inputs: Mapping[str, Any]) -> list[str]:
        """Return the greedy answer to each question."""
        ids = self.model.generate(**inputs, max_new_tokens=self.settings.max_new_tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        decoded: list[str] = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def _chosen(self, inputs: Mapping[str, Any], batch: Sequence[Any]) -> list[str | None]:
        """The most likely choice of each question. A choice is scored for the whole batch at once."""
        offered = [tuple(getattr(sample, "choices", ())) if self.settings.choices else () for sample in batch]
        likely: dict[str, Tensor] = {
            choice: loglikelihood(self.model, self.processor.tokenizer, inputs, choice)[0]
            for choice in dict.fromkeys(choice for own in offered for choice in own)
        }
        return [
            max(own, key=lambda choice, row=row: float(likely[choice][row])) if own else None  # type: ignore[misc]
            for row, own in enumerate(offered)
        ]


def _for_picture(method: Method, picture: int) -> Method:
    """The method for calls with that picture alone. An oracle counts pictures from the first of a call."""
    if not isinstance(method, Oracle):
        return method
    return Oracle(boxes=[method.boxes[picture]] * BATCH, image_size=method.image_size)


def _tokens_read(inputs: Mapping[str, Any], pruned: Pruned | None, rows: int, model: Any) -> int:
    """Visual tokens of each row that the language model read."""
    if pruned is not None:
        return sum(len(image.kept) for image in pruned.trace.images) // rows
    return int((inputs["input_ids"] == int(model.config.image_token_id)).sum()) // rows
