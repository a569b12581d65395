"""The quality columns of a trade-off: what is still answered, and what is left in the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from salience.core.result_rows import KINDS
from salience.core.types import VisualGrid
from salience.lab.data.scene_pictures import SIDE
from salience.lab.evaluate.bootstrap import interval
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.packed_answers import PackedAnswers, answer, divergence, pick
from salience.lab.evaluate.probe import fit_probe, majority_line, named_share, pair_labels
from salience.lab.fit.text_saliency import REFERENCE, text_saliency
from salience.lab.tradeoff.differences import DEFINITION, MARKS, marks
from salience.lab.tradeoff.methods_under_test import question_cuts
from salience.vlm.families import Adapter

Places = Literal["auto", "original", "compact"]

#: What the quality columns mean, for who reads the results and not this file.
DEFINITIONS = {
    "accuracy": "share of the questions whose greedy answer is the right word and then the end",
    "accuracy_low, accuracy_high": "95 % percentile bootstrap, 2,000 draws of whole pictures",
    "answer_kl": "KL(full || pruned) in nats, mean over the answer's tokens (the end token included) and questions",
    "probe_accuracy": "of the m (digit, colour) pairs in a picture, the share among the m that a small classifier rates"
    " highest; it reads each kept projected token and sums what it finds; trained anew for every row on training"
    " pictures",
    "prefill_ms": "of warm caches: the mean of three calls, one behind the other and behind one that is not timed",
    "prefill_batch4_ms": "prefill of four pictures at once, in all; every other time is of one picture",
    "feature_cosine": "cosine between the mean of the kept projected tokens and that of all, mean over pictures",
    "saliency_mass": "share kept of the unpruned model's attention from a question's tokens to the picture, mean over "
    "layers and heads, normalised a question, mean over a picture's questions",
    "item_share": "share of the kept tokens whose middle lies in an item's box, mean over pictures",
    "tokens_kept": "mean over pictures for a method that finds its own count (prumerge), whose cost columns are those"
    " of the whole budget; merged tokens count as the ones they were merged into, also in saliency_mass and item_share",
    "differences": DEFINITION,
    "oracle-question": "each question keeps the items it is about; measured on the first pictures only, no probe",
}


def cells_on(boxes: Sequence[Sequence[float]], grid: VisualGrid) -> Tensor:
    """(n,) bool: whether a cell's middle lies in one of the boxes (x0, y0, x1, y1), in pixels of a scene."""
    x = (torch.arange(grid.columns) + 0.5) * (SIDE / grid.columns)
    y = (torch.arange(grid.rows) + 0.5) * (SIDE / grid.rows)
    inside = torch.zeros(grid.rows, grid.columns, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None]
    return inside.reshape(-1)


class Quality:
    """Measures rows on test pictures; the probe learns on training pictures.

    The unpruned model is run once: its answers are the reference of `answer_kl`, and its text-to-image attention (every
    layer, every token of the question, mean over heads; normalised a question, then averaged) that of `saliency_mass`.
    """

    def __init__(
        self, adapter: Adapter, test: EncodedPictures, train: EncodedPictures | None, *, positions: Places = "original"
    ) -> None:
        self.adapter, self.test, self.train, self.positions = adapter, test, train, positions
        self.all = torch.arange(test.features.shape[1])
        self.kinds = [sample.kind.replace("-", "_") for group in test.samples for sample in group]
        self.before = torch.tensor([0, *(len(group) for group in test.samples)]).cumsum(0).tolist()
        self.full = answer(adapter, test, [self.all] * len(test), positions=positions)
        self.reference = text_saliency(adapter, test, [REFERENCE])[0]  # (P, n)
        self.on_items = [cells_on(group[0].boxes, test.grid) for group in test.samples]
        self.test_labels = pair_labels([group[0].items for group in test.samples])
        self.train_labels = None if train is None else pair_labels([group[0].items for group in train.samples])

    def whole(self) -> dict[str, Any]:
        """The quality columns with all tokens."""
        every, trained = [self.all] * len(self.test), [self.all] * (0 if self.train is None else len(self.train))
        return {
            **self._answers(self.full, self.full, self.kinds),
            "probe_accuracy": self._probe(every, trained),
            "feature_cosine": 1.0,
            "saliency_mass": 1.0,
            "item_share": self._item_share(list(enumerate(every))),
        }

    def row(
        self,
        kept: Sequence[Tensor],
        kept_train: Sequence[Tensor],
        *,
        visual: Sequence[Tensor] | None = None,
        visual_train: Sequence[Tensor] | None = None,
    ) -> dict[str, Any]:
        """The quality columns when these tokens stay: one (k,) a test picture and one a training picture.

        visual, visual_train: for each (k, d_llm), the tokens after the projector where some were merged.
        """
        found = answer(self.adapter, self.test, kept, visual=visual, positions=self.positions)
        pairs = list(enumerate(kept))
        return {
            **self._answers(self.full, found, self.kinds),
            "probe_accuracy": self._probe(kept, kept_train, visual, visual_train),
            "feature_cosine": self._cosine(pairs, visual),
            "saliency_mass": self._mass(pairs),
            "item_share": self._item_share(pairs),
        }

    def ceiling(self, keep: float, pictures: int) -> dict[str, Any]:
        """The same when each question keeps the tokens of the items it is about, on the first `pictures` pictures.

        The probe is of a picture and not of a question, so it is not measured.
        """
        cuts = question_cuts(self.test.first(pictures), keep)
        asked = [[self.test.prompts[picture][number] for number in numbers] for picture, _, numbers in cuts]
        found = answer(
            self.adapter, self.test, [kept for _, kept, _ in cuts], which=[picture for picture, _, _ in cuts],
            prompts=asked, positions=self.positions,
        )  # fmt: skip
        order = [self.before[picture] + number for picture, _, numbers in cuts for number in numbers]
        pairs = [(picture, kept) for picture, kept, numbers in cuts for _ in numbers]
        return {
            **self._answers(pick(self.full, order), found, [self.kinds[question] for question in order]),
            MARKS: "",  # other questions in another order: not to be paired with a method's
            "probe_accuracy": None,
            "feature_cosine": self._cosine(pairs),
            "saliency_mass": self._mass(pairs),
            "item_share": self._item_share(pairs),
        }

    def other_picture(self, pictures: int, shifts: int, blind: Sequence[bool]) -> dict[str, float] | None:
        """The control: accuracy with all tokens when each question is asked of another picture instead of its own.

        Args:    pictures: how many give their questions   shifts: of how many other pictures each question is asked
                 blind: (Q,) which of all questions the question alone gets right
        Returns: accuracy, its interval (low, high), and above_low, above_high: the interval of what it is above the
                 question-only model on the same questions. Intervals resample the pictures that the questions are of.
                 None where there is no other picture.
        """
        pictures, count = min(pictures, len(self.test)), len(self.test)
        if count < 2:
            return None
        alone = torch.tensor(blind[: self.before[pictures]], dtype=torch.float64)
        shifts = min(shifts, count - 1)
        # By the picture shown, so that the questions of several others share its prefix.
        guests = {
            shown: [asker for shift in range(1, shifts + 1) if (asker := (shown - shift) % count) < pictures]
            for shown in range(count)
        }
        which = [shown for shown, askers in guests.items() if askers]
        found = answer(
            self.adapter, self.test, [self.all] * len(which), which=which, positions=self.positions,
            prompts=[[prompt for asker in guests[shown] for prompt in self.test.prompts[asker]] for shown in which],
        )  # fmt: skip
        asked = [number for shown in which for asker in guests[shown] for number in self._questions(asker)]
        mean = torch.zeros(len(alone), dtype=torch.float64)
        mean.index_add_(0, torch.tensor(asked), found.correct.double() / shifts)  # (Q,)
        picture = self.full.picture[: len(mean)]
        low, high = interval(mean, picture)
        above_low, above_high = interval(mean - alone, picture)
        return {
            "accuracy": float(mean.mean()), "low": low, "high": high, "above_low": above_low, "above_high": above_high,
        }  # fmt: skip

    def _questions(self, picture: int) -> range:
        """The numbers of a picture's questions among all."""
        return range(self.before[picture], self.before[picture + 1])

    def full_accuracy(self, pictures: int) -> float:
        """Accuracy with all tokens on the first `pictures` pictures."""
        return float(self.full.correct[self.full.picture < pictures].float().mean())

    def probe_majority(self) -> float | None:
        """The probe's majority line."""
        return None if self.train_labels is None else majority_line(self.train_labels, self.test_labels)

    def _answers(self, full: PackedAnswers, found: PackedAnswers, kinds: Sequence[str]) -> dict[str, Any]:
        low, high = interval(found.correct, found.picture)
        return {
            "accuracy": found.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "answer_kl": float(divergence(full, found).mean()),
            **{f"accuracy_{kind}": share for kind, share in by_kind(found.correct, kinds).items()},
            "n_pictures": len(set(found.picture.tolist())),
            MARKS: marks(found.correct),
        }

    def _probe(
        self,
        kept: Sequence[Tensor],
        kept_train: Sequence[Tensor],
        visual: Sequence[Tensor] | None = None,
        visual_train: Sequence[Tensor] | None = None,
    ) -> float | None:
        if self.train is None or self.train_labels is None:
            return None
        probe = fit_probe(_kept_tokens(self.train, list(enumerate(kept_train)), visual_train), self.train_labels)
        return named_share(probe.rate(_kept_tokens(self.test, list(enumerate(kept)), visual)), self.test_labels)

    def _cosine(self, pairs: Sequence[tuple[int, Tensor]], visual: Sequence[Tensor] | None = None) -> float:
        """Mean over pictures of the cosine between the mean of the kept tokens and that of all, after the projector."""
        whole = self.test.projected.float().mean(1).cpu()[[picture for picture, _ in pairs]]
        return float(cosine_similarity(_pooled(self.test, pairs, visual), whole, dim=-1).mean())

    def _item_share(self, pairs: Sequence[tuple[int, Tensor]]) -> float:
        """How much of what is kept lies on items; pairs: (picture, kept (k,))."""
        return float(torch.stack([self.on_items[picture][kept].float().mean() for picture, kept in pairs]).mean())

    def _mass(self, pairs: Sequence[tuple[int, Tensor]]) -> float:
        return sum(float(self.reference[picture, kept].sum()) for picture, kept in pairs) / len(pairs)


def by_kind(correct: Tensor, kinds: Sequence[str]) -> Mapping[str, float | None]:
    """Accuracy of every question kind; None for one that was not asked."""
    shares: dict[str, float | None] = {}
    for kind in KINDS:
        mine = torch.tensor([other == kind for other in kinds])
        shares[kind] = float(correct[mine].float().mean()) if mine.any() else None
    return shares


def _kept_tokens(
    pictures: EncodedPictures, pairs: Sequence[tuple[int, Tensor]], visual: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """For each pair (k, d_llm) float32, on the CPU: the kept tokens after the projector."""
    if visual is not None:
        return [tokens.float().cpu() for tokens in visual]
    return [pictures.projected[picture, kept].float().cpu() for picture, kept in pairs]


def _pooled(
    pictures: EncodedPictures, pairs: Sequence[tuple[int, Tensor]], visual: Sequence[Tensor] | None = None
) -> Tensor:
    """(pairs, d_llm) float32: the mean of the kept tokens after the projector."""
    return torch.stack([tokens.mean(0) for tokens in _kept_tokens(pictures, pairs, visual)])
