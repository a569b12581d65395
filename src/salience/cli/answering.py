"""Answers to one question with all visual tokens and with a part, timed interleaved."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from salience.cli.loading import LoadedModel
from salience.core.types import VisualGrid
from salience.lab.evaluate.prompts import prompt_text
from salience.lab.profile.latency import Stopwatch, measure
from salience.vlm.methods.budget import Budget
from salience.vlm.prune import prune

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

MAX_NEW_TOKENS = 32
_PATIENCE_MS = 2_000.0  # a model whose answer takes longer is timed once instead of seven times
_ROUNDS = 7


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, and its cost.

    tokens: visual tokens that entered the language model.   first_token_ms, answer_ms: wall clock of `generate`, vision
    tower included, to its first token and to its end.
    """

    text: str
    tokens: int
    first_token_ms: float
    answer_ms: float


@dataclass(frozen=True, kw_only=True)
class BothAnswers:
    """Both answers, the method's name, and the tokens that it kept of the first view, in raster order of `grid`.

    rounds: of the timing.   views: number of views of the picture; an answer's `tokens` are those of all views.
    """

    full: Answer
    pruned: Answer
    method: str
    grid: VisualGrid
    kept: tuple[int, ...]
    rounds: int
    views: int


def prepare(processor: ProcessorMixin, picture: Image, question: str) -> BatchFeature:
    """The model's inputs for one picture and one question, on the CPU.

    Raises: ValueError when the question is empty, holds the image token or words the vocabulary lacks
    """
    _require_question(processor, question)
    text = prompt_text(processor, question.strip())
    bos = processor.tokenizer.bos_token  # if the template writes it, the tokenizer must not
    special = not (bos and text.startswith(bos))
    return processor(images=picture, text=text, add_special_tokens=special, return_tensors="pt")


def _require_question(processor: ProcessorMixin, question: str) -> None:
    if not question.strip():
        raise ValueError("question: it is empty.")
    if any("\ud800" <= letter <= "\udfff" for letter in question):
        raise ValueError("question: it holds bytes that are no UTF-8 text.")
    image_token = processor.image_token
    if image_token in question:
        raise ValueError(f"question: it must not contain {image_token}, which stands for the picture.")
    unknown = unknown_words(processor.tokenizer, question)
    if unknown:
        words = ", ".join(repr(word) for word in unknown)
        raise ValueError(f"question: the model's vocabulary of {len(processor.tokenizer)} words lacks {words}.")


def unknown_words(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Words of `text` that the tokenizer reads as "unknown", in order, each once."""
    if tokenizer.unk_token_id is None or not tokenizer.is_fast:
        return []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return list(dict.fromkeys(text[a:b] for token, (a, b) in spans if token == tokenizer.unk_token_id))


def answer_both_ways(loaded: LoadedModel, inputs: BatchFeature, method: str, seed: int, budget: Budget) -> BothAnswers:
    """Answer once each way, which also warms up; then time both, interleaved.

    Args:    method, seed: as `salience.prune` takes them
    Raises:  ValueError where `salience.prune` does
    """
    with prune(loaded.model, method, seed=seed, **budget.given) as pruned:
        short, slow_ms = _generate(loaded, inputs)
        views = pruned.trace.images
        seen = views[0]
    full, full_ms = _generate(loaded, inputs)
    rounds = 1 if max(slow_ms, full_ms) > _PATIENCE_MS else _ROUNDS

    def without(watch: Stopwatch) -> None:
        _laps(loaded, inputs, watch)

    def with_pruning(watch: Stopwatch) -> None:
        with prune(loaded.model, pruned.method, **budget.given):
            _laps(loaded, inputs, watch)

    cases = {"full": without, "pruned": with_pruning}
    times = measure(cases, repeats=rounds, warmup=0 if rounds == 1 else 1, device=loaded.model.device)
    return BothAnswers(
        full=Answer(text=full, tokens=sum(view.grid.n for view in views), **times["full"]),
        pruned=Answer(text=short, tokens=sum(len(view.kept) for view in views), **times["pruned"]),
        method=pruned.method.name,
        grid=seen.grid,
        kept=tuple(seen.kept.tolist()),
        rounds=rounds,
        views=len(views),
    )


def _laps(loaded: LoadedModel, inputs: BatchFeature, watch: Stopwatch) -> None:
    watch.start()
    _generate(loaded, inputs, max_new_tokens=1)
    watch.lap("first_token_ms")
    _generate(loaded, inputs)
    watch.lap("answer_ms")


@torch.inference_mode()
def _generate(loaded: LoadedModel, inputs: BatchFeature, max_new_tokens: int = MAX_NEW_TOKENS) -> tuple[str, float]:
    """A greedy answer, the same every time, and its milliseconds."""
    since = time.perf_counter()
    ids = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    elapsed = (time.perf_counter() - since) * 1e3
    new = ids[0, inputs["input_ids"].shape[1] :]
    text: str = loaded.processor.tokenizer.decode(new, skip_special_tokens=True)
    return text.strip(), elapsed
