"""Samples: the same picture and question at every ratio, with the tokens that were kept and the answer.

The choice is a rule. Candidates are one question of each of the first pictures, with alternating kinds. Half of the
samples are the first that the subject answers correctly at every ratio. The other half are the first that it answers
correctly with all tokens but not at every ratio.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from salience.core.files import write_atomic
from salience.core.result_tables import Example, ExampleCut
from salience.lab.data.scenes import Sample
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.packed_answers import answer
from salience.lab.evaluate.ranking import RankedPictures, Ranking
from salience.lab.tradeoff.config import DEFAULT_METHODS
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.controls import first_questions
from salience.lab.tradeoff.encoded_task import EncodedTask
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.vlm.methods.budget import Budget

_CANDIDATES = 32
_SHOWN = ("saliency", "random", "cls-attention")


def examples(
    context: RunContext, generate: GenerateEvaluator, task: EncodedTask, methods: Sequence[MethodUnderTest]
) -> tuple[Example, ...]:
    """Return the samples, stored in the cache; their pictures go to `<out>/figures`."""
    shown = {method.name: method for method in reversed(methods) if method.name in _SHOWN}
    keeps, count = context.config.pruned, context.config.examples
    if not shown or not keeps or count < 1:
        return ()
    subject = shown.get("saliency") or next(iter(shown.values()))
    ordered = [shown[name] for name in DEFAULT_METHODS if name in shown]

    def made() -> list[dict[str, object]]:
        chosen = choose(task.test, subject, keeps, count)
        return [
            _example(context, generate, task.test, place, sample, ordered).to_json()
            for place, sample in enumerate(chosen)
        ]

    with context.bars.bar("samples", 1) as tick:
        found = tuple(Example.from_json(one, "examples") for one in context.cache.get("examples", made))
        tick()
    return found


def choose(test: RankedPictures, subject: MethodUnderTest, keeps: Sequence[float], count: int) -> list[tuple[int, int]]:
    """Return (picture, question) of the samples, half answered at every ratio and half lost, where there are enough."""
    pictures, before = test.pictures.first(_CANDIDATES), first_questions(test.pictures)
    numbers = [picture % len(group) for picture, group in enumerate(pictures.samples)]
    prompts = [[group[number]] for group, number in zip(pictures.prompts, numbers, strict=True)]
    full = test.all_tokens.correct[[before[picture] + number for picture, number in enumerate(numbers)]]
    held = full.clone()
    ranking = Ranking(subject.method, pictures)
    for keep in keeps:
        held &= answer(test.adapter, pictures, ranking.kept(keep), prompts=prompts, positions=test.positions).correct
    kept_right = [picture for picture in range(len(pictures)) if held[picture]]
    lost = [picture for picture in range(len(pictures)) if full[picture] and not held[picture]]
    rest = [picture for picture in range(len(pictures)) if not full[picture]]
    first = kept_right[: count - count // 2] + lost[: count // 2]
    spare = [picture for picture in [*kept_right, *lost, *rest] if picture not in first]
    return [(picture, numbers[picture]) for picture in sorted((first + spare)[:count])]


def _example(
    context: RunContext,
    generate: GenerateEvaluator,
    test: RankedPictures,
    place: int,
    chosen: tuple[int, int],
    methods: Sequence[MethodUnderTest],
) -> Example:
    """One sample, answered by `generate`."""
    picture, number = chosen
    sample, grid = test.pictures.samples[picture][number], test.pictures.grid
    inputs = generate.inputs(sample.image, [sample.question])

    def cut(method: MethodUnderTest, keep: float) -> ExampleCut:
        with generate.pruned(method.method, Budget(keep=keep), picture) as pruned:
            assert pruned is not None  # there is a method
            (text,) = generate.texts(inputs)
            kept = tuple(pruned.trace.images[0].kept.tolist())
        return ExampleCut(method=method.name, keep=keep, kept=kept, answer=text)

    return Example(
        image=None if context.out is None else _store(sample, context.out, place),
        question=sample.question,
        answer=sample.answer,
        full_answer=generate.texts(inputs)[0],
        kind=sample.kind,
        boxes=sample.boxes,
        grid=(grid.rows, grid.columns),
        cuts=tuple(cut(method, keep) for method in methods for keep in context.config.pruned),
    )


def _store(sample: Sample, out: Path, place: int) -> str:
    stream = io.BytesIO()
    sample.image.save(stream, format="PNG")
    name = f"figures/sample_{place}.png"
    write_atomic(out / name, stream.getvalue())
    return name
