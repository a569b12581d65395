"""Measurements of a trade-off: answers and token metrics of every method, ratio and seed, kept in the result cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from salience.core.result_object import ResultObject
from salience.lab.evaluate.evaluator import Answers, Evaluator, Tick
from salience.lab.evaluate.ranking import works_inside
from salience.lab.tradeoff.config import ORACLE_QUESTION
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.controls import question_oracle
from salience.lab.tradeoff.encoded_task import EncodedTask
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.lab.tradeoff.token_metrics import TokenMetrics, token_metrics
from salience.vlm.methods.budget import Budget


@dataclass(frozen=True, kw_only=True)
class Measurement(ResultObject):
    """Answers and token metrics of one method, ratio and seed.

    tokens: metrics of the kept tokens
    questions: numbers of the questions that `answers` are of; None for all, in their order
    """

    answers: Answers
    tokens: TokenMetrics = field(default_factory=TokenMetrics)
    questions: tuple[int, ...] | None = None


#: (method, seed, ratio) of a row; of all tokens the name is empty.
Key = tuple[str, int, float]
ALL: Key = ("", 0, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """One method at one ratio on a part of the pictures. method: None for all tokens"""

    method: MethodUnderTest | None
    keep: float
    part: range

    @property
    def key(self) -> Key:
        return ALL if self.method is None else (self.method.name, self.method.seed, self.keep)

    @property
    def name(self) -> str:
        """Name of the stored result."""
        method, seed, keep = self.key
        return f"{method or 'whole'}-{seed}-{keep}-{self.part.start}"


def measure(
    context: RunContext, evaluator: Evaluator, encoded: EncodedTask | None, methods: Sequence[MethodUnderTest]
) -> dict[Key, Measurement]:
    """Return the measurement of all tokens, and of every method at every ratio below 1.

    The processes of the run share the jobs. A finished job is stored, so that a killed run continues behind it.
    """
    jobs = {job.name: job for job in _jobs(context, evaluator, methods)}
    mine = context.cache.claim(jobs)
    with context.bars.bar("methods x ratios x pictures", sum(len(jobs[name].part) for name in mine)) as tick:

        def computed(job: _Job) -> dict[str, Any]:
            return _measured(evaluator, encoded, job, tick).to_json()

        found = context.cache.fill({name: partial(computed, job) for name, job in jobs.items()}, mine)
    parts: dict[Key, list[Measurement]] = {}
    for name, job in jobs.items():
        parts.setdefault(job.key, []).append(Measurement.from_json(found[name], name))
    return {key: replace(each[0], answers=Answers.joined(part.answers for part in each)) for key, each in parts.items()}


def _jobs(context: RunContext, evaluator: Evaluator, methods: Sequence[MethodUnderTest]) -> Iterator[_Job]:
    """The jobs, the most expensive first."""
    for part in evaluator.parts(None):
        yield _Job(method=None, keep=1.0, part=part)
    for keep in context.config.pruned:
        for method in methods:
            ceiling = method.name == ORACLE_QUESTION
            for part in [range(context.config.ceiling_pictures)] if ceiling else evaluator.parts(method.method):
                yield _Job(method=method, keep=keep, part=part)


def _measured(evaluator: Evaluator, encoded: EncodedTask | None, job: _Job, tick: Tick) -> Measurement:
    if encoded is not None and job.method is not None and job.method.name == ORACLE_QUESTION:
        answers, questions, kept = question_oracle(encoded.test, job.keep, len(job.part))
        tick(len(job.part))
        return Measurement(answers=answers, tokens=token_metrics(encoded, kept, None), questions=questions)
    method = None if job.method is None else job.method.method
    answers = evaluator.run(method, Budget(keep=job.keep), part=job.part, tick=tick)
    if encoded is None or (method is not None and works_inside(type(method))):
        return Measurement(answers=answers)
    tokens = token_metrics(encoded, *encoded.kept(job.method, job.keep))
    if method is None:
        tokens = replace(tokens, feature_cosine=1.0, saliency_mass=1.0)  # exactly, without rounding
    return Measurement(answers=answers, tokens=tokens)
