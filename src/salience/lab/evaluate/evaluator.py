"""Evaluator protocol: a model's answers to questions about pictures, under one pruning method and budget.

Two engines implement it: `packed_evaluator` and `generate_evaluator`. `evaluator_for` (in `packed_evaluator`) chooses
one. Glossary: P pictures, Q questions in the order of the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from salience.core.result_object import ResultObject
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget

Positions = Literal["auto", "original", "compact"]
#: Called with the number of pictures that were finished.
Tick = Callable[[int], object]


class PictureQuestion(Protocol):
    """Sample of any task. `answers` (of several people) and `choices` are read where a sample has them."""

    @property
    def image(self) -> Any: ...
    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """Settings of the questions and of the greedy answers.

    instruction: text after every question   max_new_tokens: limit of an answer   positions: as in `salience.prune`
    choices: whether the most likely choice is found too, which is one run of the model for each choice
    """

    instruction: str = ""
    max_new_tokens: int = 16
    positions: Positions = "original"
    choices: bool = True


@dataclass(frozen=True, kw_only=True)
class Answers(ResultObject):
    """Answers to Q questions about P pictures.

    right: (Q,) marks in 0..1 by the task's own measure   tokens: (P,) visual tokens that the language model read
    texts: (Q,); None where teacher forcing found whether the answer is right, without generating it
    chosen: (Q,) the most likely choice, None for a question without choices; None where `texts` is
    answer_kl: (Q,) KL(all tokens || pruned) in nats, mean over the answer's tokens; None where `texts` is not
    """

    right: tuple[float, ...]
    tokens: tuple[int, ...]
    texts: tuple[str, ...] | None = None
    chosen: tuple[str | None, ...] | None = None
    answer_kl: tuple[float, ...] | None = None

    @staticmethod
    def joined(parts: Iterable[Answers]) -> Answers:
        """Return the answers of several parts of the pictures as one, in their order."""
        each = list(parts)

        def join(name: str) -> Any:
            values = [getattr(part, name) for part in each]
            return None if None in values else tuple(value for part in values for value in part)

        return Answers(**{name: join(name) for name in ("right", "tokens", "texts", "chosen", "answer_kl")})


class Evaluator(Protocol):
    """Model and questions that can be evaluated with any method and budget."""

    @property
    def samples(self) -> Sequence[PictureQuestion]:
        """The Q questions."""
        ...

    def parts(self, method: Method | None) -> list[range]:
        """Return the numbers of the pictures in parts, each of which `run` can evaluate by itself."""
        ...

    def run(
        self, method: Method | None, budget: Budget, *, part: range | None = None, tick: Tick | None = None
    ) -> Answers:
        """Return the answers to all questions, or to those about the pictures of one part.

        Args:    method: None keeps all tokens   part: one of `parts(method)`   tick: called as pictures are finished
        """
        ...
