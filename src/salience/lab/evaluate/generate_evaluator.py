"""Questions asked of a model as its users ask them: processor, `salience.prune`, `generate`. Any family, any method.

Slower than `training.answering`, which runs a picture's questions together, but knows nothing of a model's insides.
Glossary: Q questions, in the pictures' order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

import salience
from salience.lab.data.vqa.answer_metrics import LEAST, exact_match, vqa_accuracy
from salience.lab.evaluate.prompts import prompt_inputs
from salience.lab.evaluate.teacher_forcing import forced_logits
from salience.vlm.methods.base import Method

#: Questions of a picture that go through the model together.
BATCH = 8
#: Pictures of a part, the least that is asked by itself.
PART = 16


class Asked(Protocol):
    """What a sample of any task has; `answers` (several people's) and `choices` are read where there are any."""

    @property
    def image(self) -> Any: ...
    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Replies:
    """What a model said to Q questions.

    texts: (Q,)   chosen: for each question the likeliest of its choices, None where it has none
    tokens: for each picture, the visual tokens that the language model read
    """

    texts: list[str]
    chosen: list[str | None]
    tokens: list[int]


def answers_of(sample: Any) -> tuple[str, ...]:
    """All answers that count."""
    return tuple(getattr(sample, "answers", ())) or (sample.answer,)


def score(sample: Any, said: str) -> float:
    """The task's own measure: VQA accuracy where enough people answered, else exact match."""
    answers = answers_of(sample)
    return vqa_accuracy(said, answers) if len(answers) >= LEAST else exact_match(said, answers)


def measures(samples: Sequence[Any], replies: Replies) -> dict[str, list[float | None]]:
    """Measure -> a mark a question, None where it has no meaning; "accuracy" is the task's own."""
    each = list(zip(samples, replies.texts, replies.chosen, strict=True))
    return {
        "accuracy": [score(sample, said) for sample, said, _ in each],
        "exact_match": [exact_match(said, answers_of(sample)) for sample, said, _ in each],
        "vqa_accuracy": [
            vqa_accuracy(said, answers_of(sample)) if len(answers_of(sample)) >= LEAST else None
            for sample, said, _ in each
        ],
        "loglikelihood_accuracy": [
            None if chosen is None else exact_match(chosen, answers_of(sample)) for sample, _, chosen in each
        ],
    }


class GenerateEvaluator:
    """A model, its processor, and pictures with their questions, to be asked at any method and ratio.

    Args:    instruction: put behind every question   max_new_tokens: of an answer
             choices: whether the likeliest choice is found, too: a run of the model for each choice
    """

    def __init__(
        self, model: Any, processor: Any, groups: Sequence[Sequence[Any]], *, instruction: str = "",
        max_new_tokens: int = 16, positions: Literal["auto", "original", "compact"] = "original", choices: bool = True,
    ) -> None:  # fmt: skip
        self.model, self.processor, self.groups = model, processor, groups
        self.instruction, self.max_new_tokens, self.positions, self.choices = (
            instruction, max_new_tokens, positions, choices,
        )  # fmt: skip

    @property
    def samples(self) -> list[Any]:
        """Q samples."""
        return [sample for group in self.groups for sample in group]

    @property
    def parts(self) -> list[range]:
        """The pictures' numbers in parts."""
        count = len(self.groups)
        return [range(start, min(start + PART, count)) for start in range(0, count, PART)]

    @torch.no_grad()
    def replies(
        self, method: Method | None, keep: float, tick: Callable[[], object] | None = None, part: range | None = None
    ) -> Replies:
        """Ask everything with a share of the tokens, or with all of them where there is no method.

        method: an oracle counts pictures from the first of a call, so it can't be asked here
        tick: called after each picture   part: of `parts`, if not all pictures
        """
        texts: list[str] = []
        chosen: list[str | None] = []
        tokens = []
        for group in self.groups if part is None else [self.groups[picture] for picture in part]:
            image = group[0].image
            with self._pruned(method, keep) as pruned:
                for start in range(0, len(group), BATCH):
                    asked = group[start : start + BATCH]
                    inputs = self.inputs(image, [sample.question for sample in asked])
                    texts += self._texts(inputs)
                    if start == 0:
                        tokens.append(_read(inputs, pruned, len(asked), self.model))
                    chosen += self._chosen(inputs, asked)
            if tick is not None:
                tick()
        return Replies(texts=texts, chosen=chosen, tokens=tokens)

    def inputs(self, image: Any, questions: Sequence[str]) -> dict[str, Any]:
        """The model's arguments for questions about one picture."""
        asked = [f"{question} {self.instruction}".strip() for question in questions]
        inputs: dict[str, Any] = prompt_inputs(self.processor, [image] * len(asked), asked)
        return dict(inputs.to(self.model.device, dtype=self.model.dtype))  # type: ignore[attr-defined]

    def _pruned(self, method: Method | None, keep: float) -> contextlib.AbstractContextManager[Any]:
        if method is None:
            return contextlib.nullcontext()
        return salience.prune(self.model, method, keep=keep, positions=self.positions)

    def _texts(self, inputs: Mapping[str, Any]) -> list[str]:
        ids = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        decoded: list[str] = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def _chosen(self, inputs: Mapping[str, Any], part: Sequence[Any]) -> list[str | None]:
        """The likeliest choice of each question. A choice is weighed for the whole batch and read where it is one."""
        offered = [tuple(getattr(sample, "choices", ())) if self.choices else () for sample in part]
        weighed = {
            choice: self.loglikelihood(inputs, choice) for choice in dict.fromkeys(c for o in offered for c in o)
        }
        return [
            max(mine, key=lambda choice, row=row: float(weighed[choice][row])) if mine else None  # type: ignore[misc]
            for row, mine in enumerate(offered)
        ]

    def loglikelihood(self, inputs: Mapping[str, Any], text: str) -> Tensor:
        """(rows,) float32: log P(text | prompt), summed over its tokens, for each prompt of `inputs`."""
        return loglikelihood(self.model, self.processor.tokenizer, inputs, text)[0]


@torch.no_grad()
def loglikelihood(model: Any, tokenizer: Any, inputs: Mapping[str, Any], text: str) -> tuple[Tensor, Tensor]:
    """log P(text | prompt) for each row of `inputs`, and whether greedy decoding would have said it: (rows,) each.

    `generate` is made to say the text, so that whatever prunes or caches there does so here.

    Raises:  ValueError for a text without tokens
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError(f"text must have at least one token, unlike {text!r}.")
    rows = len(inputs["input_ids"])
    wanted = torch.tensor(ids, device=inputs["input_ids"].device).expand(rows, -1)
    logits = forced_logits(model, inputs, wanted)  # (rows, tokens, V)
    wanted = wanted[:, : logits.shape[1]]
    each = logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
    return each.sum(-1).cpu(), (logits.argmax(-1) == wanted).all(-1).cpu()


def _read(inputs: Mapping[str, Any], pruned: Any, rows: int, model: Any) -> int:
    """Visual tokens a row that the language model read."""
    if pruned is not None:
        return sum(len(image.kept) for image in pruned.trace.images) // rows
    token = int(model.config.image_token_id)
    return int((inputs["input_ids"] == token).sum()) // rows
