"""Work of each stage of a pruned prompt, counted on shapes without weights or pixels: a few seconds for 7B."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.transformers_names import cache_of_output, passed_cache
from salience.lab.profile.in_llm_counts import dropping, entering
from salience.lab.profile.meta_model import language_model, projectors
from salience.lab.profile.operator_counts import CountOperators, Work
from salience.lab.profile.peak_memory import kv_bytes, peak_bytes
from salience.lab.profile.picture_arguments import PictureInputs
from salience.lab.profile.profile_config import PromptShape
from salience.lab.profile.shapes_only import shapes_only
from salience.vlm.families import adapter_for
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.scorers.scorer import Scorer


class CountedModel:
    """A model on `meta` with its pictures encoded once.

    n: visual tokens of a picture.   width: of the features a scorer reads.   vision, projector, scorer: their work on
    all tokens of all pictures.
    """

    def __init__(self, model: Any, prompt: PromptShape, pictures: PictureInputs) -> None:
        self.model, self.prompt = model, prompt
        self.pictures = pictures
        takes = inspect.signature(model.get_image_features).parameters
        given = pictures.arguments(model.config, "meta", model.dtype, takes)
        encoded, read = CountOperators("vision"), _ProjectorInput()
        pooled: list[Any] = []

        def encode() -> None:
            with encoded:
                pooled.append(model.get_image_features(**given, return_dict=True).pooler_output)

        with shapes_only(), read.of(projectors(model)), encoded.watching(projectors(model), "projector"):
            self.tower_peak_bytes = peak_bytes(encode, model.parameters())
        self.n = _rows(pooled) // pictures.count
        self.width = _features(model, read)
        self.vision = encoded.work.get("vision", Work())
        self.projector = encoded.work.get("projector", Work())
        self.scorer = self._scored()
        self._seen: dict[tuple[int, InLLMMethod | None], CountedLLM] = {}

    def _scored(self) -> Work:
        """The scorer's network on every token; ranking them multiplies nothing."""
        with shapes_only():
            scorer = Scorer(self.width)
            with CountOperators("scorer") as counted:
                scorer(torch.empty(self.pictures.count * self.n, self.width)).sort(descending=True)
        work: Work = counted.work["scorer"]
        return work

    def language(self, kept: int, method: InLLMMethod | None = None) -> CountedLLM:
        """The language model's work with `kept` tokens of each picture, 0 included; counted once.

        method: the method that drops them inside the language model; None if they are dropped before it.
        """
        method = None if kept == self.n else method
        if (kept, method) not in self._seen:
            entered = kept if method is None else entering(method, kept, self.n)
            within: AbstractContextManager[None] = nullcontext()
            if method is not None:
                within = dropping(language_model(self.model), method, self.prompt, kept=kept, entered=entered)
            self._seen[kept, method] = self._counted(entered, within)
        return self._seen[kept, method]

    def _counted(self, entered: int, within: AbstractContextManager[None]) -> CountedLLM:
        model, prompt = self.model, self.prompt
        counted, caches = CountOperators("llm"), []

        def prefill() -> None:
            with counted:
                caches.append(_forward(model, prompt, prompt.text_tokens + prompt.images * entered))

        with shapes_only():
            with within:
                peak = peak_bytes(prefill, model.parameters())
            (cache,) = caches
            filled = kv_bytes(cache)
            steps = [_step(model, prompt, cache) for _ in range(2 if prompt.decode else 0)] or [Work()] * 2
            grown = (kv_bytes(cache) - filled) // 2
        return CountedLLM(
            prefill=counted.work["llm"],
            peak_bytes=peak,
            step=steps[0],
            more_flops=steps[1].flops - steps[0].flops,
            kv_bytes=filled + prompt.decode * grown,
        )

    @property
    def counts(self) -> list[int]:
        """Numbers of tokens whose work is known, without a method inside the language model."""
        return [kept for kept, method in self._seen if method is None]


@dataclass(frozen=True, kw_only=True, eq=False)
class CountedLLM:
    """The language model's work: prefill, and `step`, the first decoding step.

    more_flops: additional operations of each further step.   kv_bytes: of the cache, decoded tokens included.
    peak_bytes: the most bytes in use at a time, weights of the whole model included.
    """

    prefill: Work
    peak_bytes: int
    step: Work
    more_flops: int
    kv_bytes: int

    def decode_flops(self, tokens: int) -> int:
        """FLOPs of `tokens` decoded tokens; attention grows by the same amount with each."""
        return tokens * self.step.flops + self.more_flops * tokens * (tokens - 1) // 2


def vision_dominates_at(counted: CountedModel) -> int:
    """The most tokens of a picture whose work after the tower is at most the tower's own; 0 if one token has more.

    With this number or fewer, pruning all other tokens would save less than the tower costs. The language model's work
    is quadratic in the number of tokens, so three counts determine all: those of the rows, if there are three.
    """
    n = counted.n
    three = list(dict.fromkeys([*counted.counts, n, 0, max(1, n // 2)]))[:3]  # fewer if there are no three from 0 to n
    (x, y), *others = ((kept, counted.language(kept).prefill.flops) for kept in three)
    slopes = [((other - y) / (kept - x), kept) for kept, other in others]  # y + slope (kept - x) through each
    (first, middle), (second, last) = slopes[0], slopes[-1]
    b = (second - first) / (last - middle) if last != middle else 0.0  # text + a k + b k^2 through all
    a = first - b * (x + middle) + counted.projector.flops / n
    kept = 0
    while kept < n and a * (kept + 1) + b * (kept + 1) ** 2 <= counted.vision.flops:
        kept += 1
    return kept


def _forward(model: Any, prompt: PromptShape, tokens: int, cache: Any = None) -> Any:
    """The cache behind `tokens` more tokens a row, after the head has run on the last position."""
    seen = 0 if cache is None else cache.get_seq_length()
    out = language_model(model)(
        inputs_embeds=torch.empty(prompt.batch, tokens, _width(model), dtype=model.dtype),
        attention_mask=torch.ones(prompt.batch, seen + tokens, dtype=torch.int64),
        use_cache=True,
        **({} if cache is None else passed_cache(language_model(model), cache)),
    )
    model.get_output_embeddings()(out.last_hidden_state[:, -1])
    return cache_of_output(out)


def _step(model: Any, prompt: PromptShape, cache: Any) -> Work:
    with CountOperators("llm") as counted:
        _forward(model, prompt, 1, cache)
    work: Work = counted.work["llm"]
    return work


def _width(model: Any) -> int:
    return int(model.config.get_text_config().hidden_size)


def _features(model: Any, read: _ProjectorInput) -> int:
    """Width of the features that a scorer reads: that of the model's family, else that of the projector's input."""
    try:
        return adapter_for(model).d_features
    except ValueError:  # no family that can be pruned
        return read.values // read.rows if read.rows else _width(model)


def _rows(pooled: Any) -> int:
    """Number of visual tokens that `get_image_features` returns, as a tensor (..., tokens, d_llm) or a list of such."""
    if isinstance(pooled, Tensor):
        return pooled.numel() // pooled.shape[-1]
    return sum(_rows(part) for part in pooled)


class _ProjectorInput:
    """Numbers of values that the first projector reads, and of tokens that it returns."""

    def __init__(self) -> None:
        self.values = self.rows = 0

    def of(self, modules: list[nn.Module]) -> ExitStack:
        def hook(_: nn.Module, given: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor) -> None:
            read = next(x for x in (*given, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point())
            self.values, self.rows = read.numel(), out.numel() // out.shape[-1]

        stack = ExitStack()
        for module in modules[:1]:
            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        return stack
