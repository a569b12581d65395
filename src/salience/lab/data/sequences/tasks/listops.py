"""`listops`: value of a nested list operation. `[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]` is 5.

An expression is a digit, or an operator with 2 to `max_args` expressions and a closing bracket. Each expression above
the depth limit is an operation with probability 1/4. The operators are MIN, MAX, MED (the median, rounded down) and SM
(the sum modulo 10). Expressions outside the length limits (tokens, both included) are drawn anew. No expression is
drawn twice.

The published long form is `listops:min_length=500,max_length=2000,train=96000,test=2000`; the default suits a CPU.

Source: Nangia and Bowman, arXiv:1804.06028 (the grammar); Tay et al., arXiv:2011.04006 (depth 10, 10 arguments,
lengths). Generated data without a licence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import Stored
from salience.lab.data.sequences.task_options import Options, between

OPTIONS: Options = {
    "min_length": (20, 4, 1 << 14),
    "max_length": (200, 4, 1 << 14),
    "max_depth": (10, 1, 50),
    "max_args": (10, 2, 100),
    "train": (10_000, 1, 1 << 20),
    "test": (1_000, 1, 1 << 20),
}
OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
VOCABULARY = (*"0123456789", *OPERATORS, "]")
CLOSE = len(VOCABULARY) - 1
_OPERATION = 0.25  # the share of expressions that are operations
_TRIES = 20_000  # rejected expressions in a row after which the limits count as impossible
_BUFFER = 1 << 16

Draw = Callable[[], float]


def build(
    task: str, *, seed: int, min_length: int, max_length: int, max_depth: int, max_args: int, train: int, test: int
) -> SequenceTask:
    """Make the task."""
    between(task, "min_length", min_length, 4, max_length)
    draw = _draws(seed).__next__
    seen: set[bytes] = set()
    limits = (min_length, max_length, max_depth, max_args)
    tested, val, learnt = (_split(draw, seen, size, limits) for size in (test, test, train))
    return SequenceTask(
        kind="classify",
        n_classes=10,
        vocabulary=len(VOCABULARY),
        train=learnt,
        val=val,
        test=tested,
        metric="accuracy per expression",
        source=f"made from a seed: {min_length} to {max_length} tokens, depth {max_depth}, {max_args} arguments; "
        "no expression is in two splits",
        licence="none needed: made data",
        credit="Nangia and Bowman 2018; Tay et al. 2021",
        classes=tuple("0123456789"),
    )


def _draws(seed: int) -> Iterator[float]:
    """Yield uniform draws from a buffer, because trees take millions of draws."""
    rng = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield from rng.random(_BUFFER).tolist()


def _split(draw: Draw, seen: set[bytes], size: int, limits: tuple[int, int, int, int]) -> Stored:
    low, high, depth, args = limits
    found: list[list[int]] = []
    values: list[int] = []
    vain = 0
    while len(found) < size:
        tokens: list[int] = []
        value = expression(draw, tokens, high, depth, args)
        key = bytes(tokens)
        if value is None or len(tokens) < low or key in seen:
            vain += 1
            if vain > _TRIES:
                raise ValueError(
                    f"listops: {_TRIES:,} expressions in a row were not from {low} to {high} tokens long or not new; "
                    "wider limits, more depth or fewer examples are needed."
                )
            continue
        vain = 0
        seen.add(key)
        found.append(tokens)
        values.append(value)
    rows = [torch.tensor(tokens, dtype=torch.uint8) for tokens in found]
    return replace(Stored.padded(rows, values, prepare=torch.Tensor.long), length=high)


def expression(draw: Draw, tokens: list[int], longest: int, depth: int, args: int) -> int | None:
    """Append a random expression's tokens. Returns its value, or None once it is longer than `longest`."""
    if depth <= 1 or draw() > _OPERATION:
        tokens.append(int(draw() * 10))
        return tokens[-1]
    count, operator = 2 + int(draw() * (args - 1)), int(draw() * len(OPERATORS))
    tokens.append(10 + operator)
    values = []
    for _ in range(count):
        value = expression(draw, tokens, longest, depth - 1, args)
        if value is None or len(tokens) >= longest:
            return None
        values.append(value)
    tokens.append(CLOSE)
    return apply(OPERATORS[operator], values)


def apply(operator: str, values: Sequence[int]) -> int:
    """Return the value of one operation on digits."""
    if operator == "[MIN":
        return min(values)
    if operator == "[MAX":
        return max(values)
    if operator == "[SM":
        return sum(values) % 10
    middle = sorted(values)
    return (middle[(len(middle) - 1) // 2] + middle[len(middle) // 2]) // 2  # median, rounded down
