"""Teacher-forced answers to the questions about encoded pictures, all questions of a picture in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.packing import Pack, pack, run
from salience.lab.evaluate.prompts import Prompt
from salience.vlm.families import Adapter

# Limit of a batch's columns. A larger batch is no faster on a CPU and takes more memory.
_COLUMNS = 6000


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedAnswers:
    """Answers to Q questions in the order of the pictures; A answer tokens in all.

    log_probs: (A, V) float32, of each answer token, given the true answer before it
    question: (A,) the question each row belongs to   correct: (Q,) bool   picture: (Q,)
    """

    log_probs: Tensor
    question: Tensor
    correct: Tensor
    picture: Tensor

    @property
    def accuracy(self) -> float:
        """Share of the questions with a right answer."""
        return float(self.correct.float().mean())


@torch.no_grad()
def answer(
    adapter: Adapter,
    pictures: EncodedPictures,
    kept: Sequence[Tensor],
    *,
    which: Sequence[int] | None = None,
    prompts: Sequence[Sequence[Prompt]] | None = None,
    visual: Sequence[Tensor] | None = None,
    positions: str = "original",
    tick: Callable[[int], object] | None = None,
) -> PackedAnswers:
    """Ask every question with only the kept tokens.

    An answer is right if greedy decoding gives exactly the answer and then the end token. That holds exactly if at
    every step, given the true answer before it, the most likely token is the right one. So one run is enough.

    Args:    kept: for each entry of `which`, (k,) rising; runs of entries with equal k share a batch
             which: the pictures asked about, by default all   prompts: for each entry its questions, by default its own
             visual: for each entry (k, d_llm), its tokens where they were merged, by default the kept rows
             tick: called with the number of entries done
    """
    order = list(range(len(pictures))) if which is None else list(which)
    asked = [pictures.prompts[picture] for picture in order] if prompts is None else list(prompts)
    n = pictures.features.shape[1]
    rows, question, correct = [], [], []
    owner: list[int] = []
    total = 0
    for span in _batches(kept, asked):
        packed = pack([asked[i] for i in span], torch.stack([kept[i] for i in span]), n, positions=positions)
        tokens = [
            pictures.projected[order[i]][kept[i].to(pictures.projected.device)] if visual is None else visual[i]
            for i in span
        ]
        log_probs = run(adapter, packed, torch.stack(tokens)).log_softmax(-1).cpu()
        counts = [len(asked[i]) for i in span]
        number, right = _mark(packed, log_probs, counts)
        rows.append(log_probs)
        question.append(number + total)
        correct.append(right)
        owner.extend(order[i] for i, count in zip(span, counts, strict=True) for _ in range(count))
        total += sum(counts)
        if tick is not None:
            tick(len(span))
    return PackedAnswers(
        log_probs=torch.cat(rows), question=torch.cat(question), correct=torch.cat(correct), picture=torch.tensor(owner)
    )


def divergence(full: PackedAnswers, pruned: PackedAnswers) -> Tensor:
    """(Q,) KL(full || pruned) in nats, mean over each answer's tokens (the end token is one of them)."""
    each = (full.log_probs.exp() * (full.log_probs - pruned.log_probs)).sum(-1)  # (A,)
    total = torch.zeros(len(full.correct)).index_add_(0, full.question, each)
    tokens = torch.zeros(len(full.correct)).index_add_(0, full.question, torch.ones_like(each))
    # Rounding can make a divergence of zero slightly negative.
    return (total / tokens).clamp_min(0.0)


def pick(answers: PackedAnswers, questions: Sequence[int]) -> PackedAnswers:
    """The answers to these questions alone, in this order."""
    rows = [(answers.question == question).nonzero()[:, 0] for question in questions]
    number = torch.cat([torch.full((len(row),), place) for place, row in enumerate(rows)])
    chosen = torch.tensor(questions)
    return PackedAnswers(
        log_probs=answers.log_probs[torch.cat(rows)],
        question=number,
        correct=answers.correct[chosen],
        picture=answers.picture[chosen],
    )


def _mark(packed: Pack, log_probs: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Each answer token's question within the batch (A,), and whether each question's tokens are all right (Q,)."""
    before = torch.tensor([0, *counts]).cumsum(0)
    number = before[packed.owners[:, 0]] + packed.owners[:, 1]
    wrong = (log_probs.argmax(-1) != packed.targets).long()
    misses = torch.zeros(sum(counts), dtype=torch.int64).index_add_(0, number, wrong)
    return number, misses == 0


def _batches(kept: Sequence[Tensor], asked: Sequence[Sequence[Prompt]]) -> list[range]:
    """Consecutive entries with equally many tokens kept, as many as fit."""
    found, start = [], 0
    while start < len(kept):
        k, columns, end = len(kept[start]), 0, start
        while end < len(kept) and len(kept[end]) == k:
            columns += k + sum(len(prompt.suffix) + len(prompt.answer) for prompt in asked[end])
            if end > start and columns > _COLUMNS:
                break
            end += 1
        found.append(range(start, end))
        start = end
    return found
