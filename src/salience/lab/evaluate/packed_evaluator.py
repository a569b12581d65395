"""Questions asked as `generate` would answer them, but a picture encoded once and its questions run together.

For LLaVA-1.5's family and methods that prune before the language model; all else is asked through `generate`. Each
token of the answers is one run of all that are not finished: for short answers that is by far the quicker way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from salience.lab.evaluate.encoded_pictures import EncodedPictures, encode_pictures
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator, Replies
from salience.lab.evaluate.packed_answers import answer
from salience.lab.evaluate.packing import can_pack
from salience.lab.evaluate.prompts import Prompt, common_prefix, encode_prompt
from salience.lab.tradeoff.config import works_inside
from salience.lab.tradeoff.methods_under_test import Ranking
from salience.vlm.families import Adapter
from salience.vlm.methods.base import Method

#: How many bytes of encoded pictures are kept for the next method and ratio.
KEPT_BYTES = 2**30
#: What a generation configuration may hold without changing what is said greedily.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1), "repetition_penalty": (None, 1.0), "no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0), "forced_eos_token_id": (None,), "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,), "bad_words_ids": (None,), "min_new_tokens": (None, 0), "min_length": (None, 0),
}  # fmt: skip


def evaluator_for(
    adapter: Adapter, processor: Any, groups: Sequence[Sequence[Any]], **options: Any
) -> GenerateEvaluator:
    """The quickest way to ask a model: see `GenerateEvaluator` for the arguments."""
    settings = adapter.model.generation_config
    plain = all(getattr(settings, name, None) in allowed for name, allowed in _PLAIN.items())
    if can_pack(adapter) and plain and _same_before(adapter, processor):
        return PackedEvaluator(adapter, processor, groups, **options)
    return GenerateEvaluator(adapter.model, processor, groups, **options)


def _same_before(adapter: Adapter, processor: Any) -> bool:
    """Whether the chat template has the same text before the picture, whatever is asked."""
    try:
        token = adapter.image_token_id
        common_prefix([encode_prompt(processor, text, "", image_token_id=token) for text in ("one", "one or two")])
    except ValueError:
        return False
    return True


class PackedEvaluator(GenerateEvaluator):
    """`GenerateEvaluator` with `replies` from packed runs, the pictures of a part encoded together."""

    def __init__(self, adapter: Adapter, processor: Any, groups: Sequence[Sequence[Any]], **options: Any) -> None:
        super().__init__(adapter.model, processor, groups, **options)
        self.adapter = adapter
        self.tokenizer = processor.tokenizer
        self._known: dict[range, EncodedPictures] = {}
        ends = adapter.model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])

    @torch.no_grad()
    def replies(
        self, method: Method | None, keep: float, tick: Callable[[], object] | None = None, part: range | None = None
    ) -> Replies:
        """See `GenerateEvaluator.replies`."""
        if (method is not None and works_inside(method.name)) or not self._all_weighable():
            return super().replies(method, keep, tick, part)
        texts: list[str] = []
        chosen: list[str | None] = []
        tokens: list[int] = []
        for pictures in map(self._encoded, self.parts if part is None else [part]):
            kept, visual = self._kept(method, keep, pictures)
            said, first = self._said(pictures, kept, visual)
            texts += [text.strip() for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]
            asked = [sample for group in pictures.samples for sample in group]
            chosen += [self._likeliest(sample, row) for sample, row in zip(asked, first, strict=True)]
            tokens += [len(row) for row in kept]
            for _ in pictures.samples if tick is not None else ():
                tick()  # type: ignore[misc]
        return Replies(texts=texts, chosen=chosen, tokens=tokens)

    def _kept(
        self, method: Method | None, keep: float, pictures: EncodedPictures
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """For each picture (k,) the tokens that stay, and (k, d_llm) themselves where some were merged."""
        if method is None:
            every = torch.arange(pictures.features.shape[1])
            return [every] * len(pictures), None
        ranking = Ranking(method.to(pictures.features.device), pictures)
        selections = ranking.selections(keep)
        return [selection.kept for selection in selections], ranking.visual(self.adapter, selections)

    def _said(
        self, pictures: EncodedPictures, kept: Sequence[Tensor], visual: Sequence[Tensor] | None
    ) -> tuple[list[list[int]], Tensor]:
        """What is said greedily to each question, and (Q, V) the log-probabilities of its first token."""
        prompts = [prompt for group in pictures.prompts for prompt in group]
        owners = [number for number, group in enumerate(pictures.prompts) for _ in group]
        said: list[list[int]] = [[] for _ in prompts]
        live, first = list(range(len(prompts))), torch.zeros(0)
        for _ in range(self.max_new_tokens):
            which = sorted({owners[number] for number in live})
            asked: dict[int, list[Prompt]] = {picture: [] for picture in which}
            for number in live:
                asked[owners[number]].append(replace(prompts[number], answer=(*said[number], 0)))
            found = answer(
                self.adapter, pictures, [kept[picture] for picture in which], which=which,
                prompts=list(asked.values()), visual=None if visual is None else [visual[p] for p in which],
                positions=self.positions,
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

    def _likeliest(self, sample: Any, row: Tensor) -> str | None:
        """row: (V,), of the answer's first token"""
        offered = getattr(sample, "choices", ()) if self.choices else ()
        return max(offered, key=lambda choice: float(row[self._ids(choice)[0]])) if offered else None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _all_weighable(self) -> bool:
        """Whether every choice is one token, so that its likelihood can be read where the answer begins."""
        offered = {choice for sample in self.samples for choice in getattr(sample, "choices", ())}
        return not self.choices or all(len(self._ids(choice)) == 1 for choice in offered)

    def _encoded(self, part: range) -> EncodedPictures:
        """A part's pictures, kept while there is room for them."""
        found = self._known.get(part)
        if found is None:
            found = self._encode([self.groups[picture] for picture in part])
            if sum(map(_bytes, (*self._known.values(), found))) <= KEPT_BYTES:
                self._known[part] = found
        return found

    def _encode(self, groups: Sequence[Sequence[Any]]) -> EncodedPictures:
        found = encode_pictures(self.adapter, self.processor, groups, keys=True)
        token = self.adapter.image_token_id
        asked = [[f"{sample.question} {self.instruction}".strip() for sample in group] for group in groups]
        prompts = [
            [encode_prompt(self.processor, question, "", image_token_id=token) for question in group] for group in asked
        ]
        return replace(found, prompts=prompts)


def _bytes(pictures: EncodedPictures) -> int:
    return sum(t.nbytes for t in (pictures.features, pictures.projected, pictures.keys) if t is not None)
