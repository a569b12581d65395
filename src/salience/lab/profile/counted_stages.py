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
from salience.lab.profile.prompt_shape import PromptShape
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
            self._seen[kept, method] = _language(self.model, self.prompt, self.prompt.images * entered, within)
        return self._seen[kept, method]

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


def _language(model: Any, prompt: PromptShape, visual: int, within: AbstractContextManager[None]) -> CountedLLM:
    counted, caches = CountOperators("llm"), []

    def run() -> None:
        with counted:
            caches.append(_prefill(model, prompt, visual))

    with shapes_only():
        with within:
            peak = peak_bytes(run, model.parameters())
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


def _prefill(model: Any, prompt: PromptShape, visual: int) -> Any:
    """The cache of a prompt with `visual` tokens a row, after the head has run on the last position."""
    length = prompt.text_tokens + visual
    embedded = torch.empty(prompt.batch, length, _width(model), dtype=model.dtype)
    mask = torch.ones(prompt.batch, length, dtype=torch.int64)
    out = language_model(model)(inputs_embeds=embedded, attention_mask=mask, use_cache=True)
    model.get_output_embeddings()(out.last_hidden_state[:, -1])
    return cache_of_output(out)


def _step(model: Any, prompt: PromptShape, cache: Any) -> Work:
    mask = torch.ones(prompt.batch, cache.get_seq_length() + 1, dtype=torch.int64)
    with CountOperators("llm") as counted:
        out = language_model(model)(
            inputs_embeds=torch.empty(prompt.batch, 1, _width(model), dtype=model.dtype),
            attention_mask=mask,
            use_cache=True,
            **passed_cache(language_model(model), cache),
        )
        model.get_output_embeddings()(out.last_hidden_state[:, -1])
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
