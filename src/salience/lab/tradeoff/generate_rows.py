"""The rows of an asked trade-off: what was said at each method and ratio, a cell for every part of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from salience.core.progress import ProgressBars
from salience.lab.evaluate.bootstrap import interval
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator, Replies, measures
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff.config import TradeoffConfig
from salience.lab.tradeoff.differences import MARKS
from salience.vlm.methods.base import Method

#: (method, seed, keep); of all tokens the name is empty.
Line = tuple[str, int, float]
WHOLE: Line = ("", 0, 1.0)


def asked_rows(
    asking: GenerateEvaluator,
    config: TradeoffConfig,
    arms: Sequence[tuple[str, int, Method]],
    whole: Mapping[str, Any] | None,
    picture: Tensor,
    cache: ResultCache,
    bars: ProgressBars,
) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """A row for every arm at every ratio, and the quality columns of all tokens.

    whole: those columns where they are known, else all tokens are asked, too   picture: (Q,) of each question
    """
    lines: dict[Line, Method | None] = {WHOLE: None} if whole is None else {}
    lines |= {(name, seed, keep): method for keep in config.keeps if keep < 1 for name, seed, method in arms}
    said = _said(asking, lines, cache, bars)
    if whole is None:
        whole = quality(asking, said[WHOLE], picture)
    return [
        {"method": name, "keep": keep, "seed": seed,
         **(quality(asking, said[name, seed, keep], picture) if keep < 1 else whole)}
        for name, seed, _ in arms
        for keep in config.keeps
    ], whole  # fmt: skip


def _said(
    asking: GenerateEvaluator, lines: Mapping[Line, Method | None], cache: ResultCache, bars: ProgressBars
) -> dict[Line, Replies]:
    """What was said on each line. lines: the dearest first"""
    parts = {_cell(line, part): (line, part) for line in lines for part in asking.parts}
    mine = cache.claim(parts)
    with bars.bar("methods x ratios x pictures", sum(len(parts[name][1]) for name in mine)) as tick:
        jobs = {name: partial(_part, asking, lines[line], line[2], tick, part) for name, (line, part) in parts.items()}
        found = cache.fill(jobs, mine)
    return {line: _joined([found[_cell(line, part)] for part in asking.parts]) for line in lines}


def _cell(line: Line, part: range) -> str:
    name, seed, keep = line
    return f"{name or 'whole'}-{seed}-{keep}-{part.start}"


def _part(
    asking: GenerateEvaluator, method: Method | None, keep: float, tick: Callable[[], object], part: range
) -> dict[str, Any]:  # fmt: skip
    return asdict(asking.replies(method, keep, tick, part))


def _joined(parts: Sequence[Mapping[str, Any]]) -> Replies:
    """The parts' replies, in their order."""
    names = ("texts", "chosen", "tokens")
    return Replies(**{name: [value for part in parts for value in part[name]] for name in names})


def quality(asking: GenerateEvaluator, replies: Replies, picture: Tensor) -> dict[str, Any]:
    """A row's quality columns. picture: (Q,) the picture each question is of."""
    samples = asking.samples
    found = measures(samples, replies)
    marks = torch.tensor(found.pop("accuracy"), dtype=torch.float64)
    low, high = interval(marks, picture)
    kinds = [sample.kind for sample in samples]
    return {
        "tokens_kept": sum(replies.tokens) / len(replies.tokens),
        "accuracy": float(marks.mean()), "accuracy_low": low, "accuracy_high": high,
        **{measure: _mean(values) for measure, values in found.items()},
        **{column_of(kind): _mean([m for m, k in zip(marks.tolist(), kinds, strict=True) if k == kind])
           for kind in dict.fromkeys(kinds) if kind},
        "n_pictures": len(asking.groups),
        MARKS: [round(mark, 4) for mark in marks.tolist()],
    }  # fmt: skip


def column_of(kind: str) -> str:
    """The accuracy column of the data's own kind of question."""
    return f"accuracy_{spelt(kind)}"


def spelt(kind: str) -> str:
    """A kind of question as the columns spell it."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in kind.lower()).split())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
