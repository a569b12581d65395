"""Evaluator that encodes a picture once and runs its questions together behind one prefix.

For LLaVA-1.5's family and methods that prune before the language model; all else goes to the generate evaluator. Each
token of the answers is one run of all questions that are not finished, which is much faster for short answers. Pictures
that are given already encoded, with questions that have one exact answer, need one teacher-forced run in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from salience.core.types import Selection
from salience.lab.evaluate.encoded_pictures import EncodedPictures, encode_pictures
from salience.lab.evaluate.evaluator import Answers, AnswerSettings, Evaluator, PictureQuestion, Tick
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.marks import mark
from salience.lab.evaluate.packed_answers import answer, divergence
from salience.lab.evaluate.packing import can_pack
from salience.lab.evaluate.prompts import Prompt, common_prefix, encode_prompt
from salience.lab.evaluate.ranking import RankedPictures, Ranking, merged_tokens, works_inside
from salience.vlm.families import Adapter
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget

#: How many bytes of encoded pictures are kept for the next method and budget.
KEPT_BYTES = 2**30
#: Generation settings that do not change a greedy answer.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1), "repetition_penalty": (None, 1.0), "no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0), "forced_eos_token_id": (None,), "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,), "bad_words_ids": (None,), "min_new_tokens": (None, 0), "min_length": (None, 0),
}  # fmt: skip


def evaluator_for(
    adapter: Adapter,
    processor: Any,
    groups: Sequence[Sequence[PictureQuestion]],
    settings: AnswerSettings | None = None,
    *,
    encoded: RankedPictures | None = None,
) -> Evaluator:
    """Return the fastest evaluator for a model.

    Args:    groups: for each picture its questions   encoded: the same pictures, if they are encoded already: their
             questions have one exact answer each, and are marked by teacher forcing
    """
    generation = adapter.model.generation_config
    plain = all(getattr(generation, name, None) in allowed for name, allowed in _PLAIN.items())
    if encoded is not None or (can_pack(adapter) and plain and _same_prefix(adapter, processor)):
        return PackedEvaluator(adapter, processor, groups, settings, encoded=encoded)
    return GenerateEvaluator(adapter.model, processor, groups, settings)


def _same_prefix(adapter: Adapter, processor: Any) -> bool:
    """Whether the chat template has the same text before the picture for all questions."""
    try:
        token = adapter.image_token_id
        common_prefix([encode_prompt(processor, text, "", image_token_id=token) for text in ("one", "one or two")])
    except ValueError:
        return False
    return True


class PackedEvaluator(GenerateEvaluator):
    """`Evaluator` by packed runs where they are possible. See `evaluator_for` for the arguments."""

    def __init__(
        self,
        adapter: Adapter,
        processor: Any,
        groups: Sequence[Sequence[PictureQuestion]],
        settings: AnswerSettings | None = None,
        *,
        encoded: RankedPictures | None = None,
    ) -> None:
        super().__init__(adapter.model, processor, groups, settings)
        self.adapter, self.encoded = adapter, encoded
        self._part_pictures: dict[range, EncodedPictures] = {}

    def parts(self, method: Method | None) -> list[range]:
        """See `Evaluator.parts`."""
        if self.encoded is None or not self._can_pack(method):
            return super().parts(method)
        return [range(len(self.groups))]

    @torch.no_grad()
    def run(
        self, method: Method | None, budget: Budget, *, part: range | None = None, tick: Tick | None = None
    ) -> Answers:
        """See `Evaluator.run`."""
        if not self._can_pack(method):
            return super().run(method, budget, part=part, tick=tick)
        if self.encoded is not None:
            return self._marked(self.encoded, method, budget, tick)
        return Answers.joined(
            self._generated(self._encoded(one), method, budget, tick)
            for one in (self.parts(method) if part is None else [part])
        )

    def _can_pack(self, method: Method | None) -> bool:
        return (method is None or not works_inside(type(method))) and self._choices_are_tokens

    def _marked(self, encoded: RankedPictures, method: Method | None, budget: Budget, tick: Tick | None) -> Answers:
        """The answers by teacher forcing."""
        pictures, kept, found = encoded.pictures, encoded.every(), encoded.all_tokens
        if method is not None:
            selections = encoded.ranking(method).selections(budget)
            kept = [selection.kept for selection in selections]
            visual = merged_tokens(self.adapter, pictures, selections)
            found = answer(self.adapter, pictures, kept, visual=visual, positions=encoded.positions)
        if tick is not None:
            tick(len(pictures))
        return Answers(
            right=tuple(found.correct.float().tolist()),
            tokens=tuple(map(len, kept)),
            answer_kl=tuple(divergence(encoded.all_tokens, found).tolist()),
        )

    def _generated(
        self, pictures: EncodedPictures, method: Method | None, budget: Budget, tick: Tick | None
    ) -> Answers:
        """The answers that greedy decoding gives."""
        if method is None:
            selections = [Selection(kept=torch.arange(pictures.features.shape[1]))] * len(pictures)
        else:
            selections = Ranking(method.to(pictures.features.device), pictures).selections(budget)
        said, first = self._decoded(pictures, selections)
        texts = [text.strip() for text in self.processor.tokenizer.batch_decode(said, skip_special_tokens=True)]
        samples = [sample for group in pictures.samples for sample in group]
        if tick is not None:
            tick(len(pictures))
        return Answers(
            right=tuple(mark(sample, text) for sample, text in zip(samples, texts, strict=True)),
            tokens=tuple(len(selection.kept) for selection in selections),
            texts=tuple(texts),
            chosen=tuple(self._likeliest(sample, row) for sample, row in zip(samples, first, strict=True)),
        )

    def _decoded(self, pictures: EncodedPictures, selections: Sequence[Selection]) -> tuple[list[list[int]], Tensor]:
        """The greedy answer's ids to each question, and (Q, V) the log-probabilities of its first token."""
        visual = merged_tokens(self.adapter, pictures, selections)
        prompts = [prompt for group in pictures.prompts for prompt in group]
        owners = [number for number, group in enumerate(pictures.prompts) for _ in group]
        said: list[list[int]] = [[] for _ in prompts]
        live, first = list(range(len(prompts))), torch.zeros(0)
        for _ in range(self.settings.max_new_tokens):
            which = sorted({owners[number] for number in live})
            asked: dict[int, list[Prompt]] = {picture: [] for picture in which}
            for number in live:
                asked[owners[number]].append(replace(prompts[number], answer=(*said[number], 0)))
            found = answer(
                self.adapter, pictures, [selections[picture].kept for picture in which], which=which,
                prompts=list(asked.values()), visual=None if visual is None else [visual[p] for p in which],
                positions=self.settings.positions,
            )  # fmt: skip
            last = torch.tensor([len(said[number]) + 1 for number in live]).cumsum(0) - 1
            rows = found.log_probs[last]
            first = rows if not first.numel() else first
            for number, token in zip(live, rows.argmax(-1).tolist(), strict=True):
                said[number].append(token)
            live = [number for number in live if said[number][-1] not in self._ends]
            if not live:
                break
        return said, first

    @cached_property
    def _ends(self) -> set[int | None]:
        ends = self.adapter.model.generation_config.eos_token_id
        return set(ends if isinstance(ends, list) else [ends])

    def _likeliest(self, sample: Any, row: Tensor) -> str | None:
        """The most likely choice. row: (V,), of the answer's first token"""
        offered = getattr(sample, "choices", ()) if self.settings.choices else ()
        return max(offered, key=lambda choice: float(row[self._ids(choice)[0]])) if offered else None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @property
    def _choices_are_tokens(self) -> bool:
        """Whether every choice is one token, so that its likelihood can be read at the answer's first token."""
        offered = {choice for sample in self.samples for choice in getattr(sample, "choices", ())}
        return not self.settings.choices or all(len(self._ids(choice)) == 1 for choice in offered)

    def _encoded(self, part: range) -> EncodedPictures:
        """The pictures of a part, kept while there is room for them."""
        found = self._part_pictures.get(part)
        if found is None:
            found = self._encode([self.groups[picture] for picture in part])
            if sum(map(_bytes, (*self._part_pictures.values(), found))) <= KEPT_BYTES:
                self._part_pictures[part] = found
        return found

    def _encode(self, groups: Sequence[Sequence[Any]]) -> EncodedPictures:
        found = encode_pictures(self.adapter, self.processor, groups, keys=True)
        token, instruction = self.adapter.image_token_id, self.settings.instruction
        asked = [[f"{sample.question} {instruction}".strip() for sample in group] for group in groups]
        prompts = [
            [encode_prompt(self.processor, question, "", image_token_id=token) for question in group] for group in asked
        ]
        return replace(found, prompts=prompts)


def _bytes(pictures: EncodedPictures) -> int:
    return sum(t.nbytes for t in (pictures.features, pictures.projected, pictures.keys) if t is not None)
