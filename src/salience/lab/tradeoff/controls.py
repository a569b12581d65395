"""Controls of a trade-off on encoded pictures: an oracle for each question, and questions about another picture.

Both ask questions in another order than the rows: Q questions, numbered in the pictures' order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from salience.core.types import TokenContext
from salience.lab.data.scene_pictures import SIDE
from salience.lab.evaluate.bootstrap import interval
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.evaluator import Answers
from salience.lab.evaluate.packed_answers import answer, divergence, pick
from salience.lab.evaluate.ranking import RankedPictures
from salience.lab.tradeoff.encoded_task import KeptTokens
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.oracle import Oracle


def first_questions(pictures: EncodedPictures) -> list[int]:
    """Return the number of each picture's first question among all, and the number of questions at the end."""
    return list(accumulate(map(len, pictures.samples), initial=0))


def full_accuracy(test: RankedPictures, pictures: int) -> float:
    """Return the accuracy with all tokens on the first `pictures` pictures."""
    full = test.all_tokens
    return float(full.correct[full.picture < pictures].float().mean())


def question_oracle(test: RankedPictures, keep: float, pictures: int) -> tuple[Answers, tuple[int, ...], KeptTokens]:
    """Answer each question from the tokens of the items that it is about, on the first `pictures` pictures.

    Returns: the answers, the numbers of their questions, and what was kept, once for each question
    """
    cuts = question_cuts(test.pictures.first(pictures), keep)
    asked = [[test.pictures.prompts[picture][number] for number in numbers] for picture, _, numbers in cuts]
    found = answer(
        test.adapter, test.pictures, [kept for _, kept, _ in cuts], which=[picture for picture, _, _ in cuts],
        prompts=asked, positions=test.positions,
    )  # fmt: skip
    before = first_questions(test.pictures)
    order = [before[picture] + number for picture, _, numbers in cuts for number in numbers]
    pairs = [(picture, kept) for picture, kept, numbers in cuts for _ in numbers]
    answers = Answers(
        right=tuple(found.correct.float().tolist()),
        tokens=tuple(len(kept) for _, kept in pairs),
        answer_kl=tuple(divergence(pick(test.all_tokens, order), found).tolist()),
    )
    which, kept = zip(*pairs, strict=True)
    return answers, tuple(order), KeptTokens(pictures=test.pictures, which=which, kept=kept)


def question_cuts(pictures: EncodedPictures, keep: float) -> list[tuple[int, Tensor, list[int]]]:
    """Return (picture, kept (k,), numbers of the questions) of the oracle that knows the items of a question.

    Questions about the same items share their tokens.
    """
    found = []
    for picture, group in enumerate(pictures.samples):
        about: dict[tuple[int, ...], list[int]] = {}
        for number, sample in enumerate(group):
            about.setdefault(tuple(sorted(sample.about)), []).append(number)
        for items, numbers in about.items():
            boxes = [group[0].boxes[item] for item in items]
            method = Oracle(boxes=[boxes], image_size=(SIDE, SIDE))
            context = TokenContext(features=pictures.features[picture], grid=pictures.grid)
            found.append((picture, method.select(context, Budget(keep=keep)).kept, numbers))
    return found


def other_picture(test: RankedPictures, pictures: int, shifts: int, blind: Sequence[float]) -> dict[str, float] | None:
    """Return the accuracy with all tokens when each question is asked about another picture instead of its own.

    Args:    pictures: how many give their questions   shifts: number of other pictures that each question is asked of
             blind: (Q,) marks of answers from the question alone
    Returns: accuracy, its interval (low, high), and above_low, above_high: the interval of its distance above the
             question-only model on the same questions. Intervals resample the pictures that the questions are of.
             None where there is no other picture.
    """
    pictures, count, before = min(pictures, len(test)), len(test), first_questions(test.pictures)
    if count < 2:
        return None
    alone = torch.tensor(blind[: before[pictures]], dtype=torch.float64)
    shifts = min(shifts, count - 1)
    # By the picture shown, so that the questions of several others share its prefix.
    guests = {
        shown: [asker for shift in range(1, shifts + 1) if (asker := (shown - shift) % count) < pictures]
        for shown in range(count)
    }
    which = [shown for shown, askers in guests.items() if askers]
    found = answer(
        test.adapter, test.pictures, test.every()[: len(which)], which=which, positions=test.positions,
        prompts=[[prompt for asker in guests[shown] for prompt in test.pictures.prompts[asker]] for shown in which],
    )  # fmt: skip
    asked = [number for shown in which for asker in guests[shown] for number in range(before[asker], before[asker + 1])]
    mean = torch.zeros(len(alone), dtype=torch.float64)
    mean.index_add_(0, torch.tensor(asked), found.correct.double() / shifts)  # (Q,)
    picture = test.all_tokens.picture[: len(mean)]
    low, high = interval(mean, picture)
    above_low, above_high = interval(mean - alone, picture)
    return {
        "accuracy": float(mean.mean()), "low": low, "high": high, "above_low": above_low, "above_high": above_high,
    }  # fmt: skip
