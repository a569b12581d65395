"""Stages that pruning runs, one call each, for one picture with one question.

The stages are encode (vision tower), select (scores and top k), project (gathering the kept tokens, the projector,
placing them in the prompt), prefill (language model and head for the last token) and decode.

Glossary: p tokens before the picture, n visual tokens of it, k of them kept, L columns of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salience.core.transformers_names import cache_of_output, passed_cache
from salience.lab.evaluate.prompts import Prompt
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.in_llm.layer_hooks import Prefill, layer_masks
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import InLLMPicture
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod

DECODE_STEPS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedPrompt:
    """One picture with one question. pixels: (1, 3, H, W) on the model's device"""

    pixels: Tensor
    prompt: Prompt


class StagePipeline:
    """The stages at one ratio, for methods that prune between the encoder and the projector."""

    def __init__(self, adapter: Adapter, case: TimedPrompt, keep: float) -> None:
        self.adapter, self.case, self.budget = adapter, case, Budget(keep=keep)
        self.device = case.pixels.device
        self.language_model: Any = adapter.language_model

    def encode(self) -> EncodedViews:
        return self.adapter.encode(self.case.pixels)

    def select(self, encoded: EncodedViews, method: Method) -> Tensor:
        return method.select(encoded.context(0, method.needs), self.budget).kept

    def kept(self, encoded: EncodedViews) -> Tensor:
        """(k,): evenly spread tokens. Which ones are kept makes no difference to the later stages."""
        n = encoded.features.shape[1]
        return torch.linspace(0, n - 1, self.budget.count(n)).round().long()

    def project(self, encoded: EncodedViews, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The pruned prompt's embeddings (1, L, d_llm) and positions (1, L)."""
        prompt, n = self.case.prompt, encoded.features.shape[1]
        visual = self.adapter.project(encoded.features[0, kept.to(self.device)])
        p, s = len(prompt.prefix), len(prompt.suffix)
        ids = [*prompt.prefix, *[self.adapter.image_token_id] * len(kept), *prompt.suffix]
        embedded = self.adapter.embed(torch.tensor([ids], device=self.device), [visual])
        places = torch.cat([torch.arange(p), p + kept, p + n + torch.arange(s)])
        return embedded, places[None].to(self.device)

    def prefill(self, embedded: Tensor, places: Tensor) -> tuple[Any, Tensor]:
        """The cache, and the logits (1, V) that the first token is read from."""
        mask = torch.ones(embedded.shape[:2], dtype=torch.int64, device=self.device)
        out = self.language_model(inputs_embeds=embedded, attention_mask=mask, position_ids=places, use_cache=True)
        return cache_of_output(out), self.adapter.lm_head(out.last_hidden_state[:, -1])

    def first_token(self, kept: Tensor) -> None:
        """All stages up to the first token; the features of all tokens are held until then."""
        encoded = self.encode()
        self.prefill(*self.project(encoded, kept))

    def decode(self, cache: Any, logits: Tensor, place: Tensor) -> None:
        """DECODE_STEPS further tokens. place: (1, 1) the last token's position"""
        named = passed_cache(self.language_model, cache)
        for step in range(DECODE_STEPS):
            embedded = self.adapter.model.get_input_embeddings()(logits.argmax(-1, keepdim=True))
            seen = torch.ones(1, cache.get_seq_length() + 1, dtype=torch.int64, device=self.device)
            at = place + 1 + step
            with self.decoding(cache):
                out = self.language_model(
                    inputs_embeds=embedded, attention_mask=seen, position_ids=at, use_cache=True, **named
                )
            logits = self.adapter.lm_head(out.last_hidden_state[:, -1])

    def decoding(self, cache: Any) -> AbstractContextManager[Any]:
        """Context in which the language model can continue from such a cache."""
        return nullcontext()


class InsidePipeline(StagePipeline):
    """The stages with one method that works inside the vision tower or the language model."""

    def __init__(self, adapter: Adapter, case: TimedPrompt, method: Method, keep: float) -> None:
        super().__init__(adapter, case, keep)
        self.method = method
        self._prefill: Prefill | None = None

    def encode(self) -> EncodedViews:
        n = self.adapter.n_tokens
        if not self.method.in_tower or n is None or self.budget.count(n) == n:
            return super().encode()
        return self.adapter.encode_merged(
            lambda n, layers: self.method.merges(n, layers, self.budget), self.case.pixels
        )

    def kept(self, encoded: EncodedViews) -> Tensor:
        """(k,): the tokens that enter the language model."""
        n = int(encoded.features.shape[1])
        return encoded.left[0].kept if encoded.left else torch.arange(n)

    def prefill(self, embedded: Tensor, places: Tensor) -> tuple[Any, Tensor]:
        with self._dropping(int(embedded.shape[1])):
            return super().prefill(embedded, places)

    def first_token(self, kept: Tensor) -> None:
        self.prefill(*self.project(self.encode(), kept))

    def decoding(self, cache: Any) -> AbstractContextManager[Any]:
        if self._prefill is None or self._prefill.layer_columns is None:
            return nullcontext()
        return layer_masks(self._prefill.decoder, cache, self._prefill.layer_columns, None)

    @contextmanager
    def _dropping(self, columns: int) -> Iterator[None]:
        prompt = self.case.prompt
        n = columns - len(prompt.prefix) - len(prompt.suffix)
        if not isinstance(self.method, InLLMMethod) or self.budget.count(n) == n:
            yield
            return
        every = torch.arange(n)
        picture = InLLMPicture(
            row=0, columns=len(prompt.prefix) + every, kept=every, tokens=every,
            places=lambda kept: torch.zeros(n, dtype=torch.bool).index_fill(0, kept, True),
            budget=Budget(tokens=self.budget.count(n)),
        )  # fmt: skip
        real = torch.ones(1, columns, dtype=torch.int64, device=self.device)
        self._prefill = Prefill(LLMLayers(self.language_model), self.method, [picture], real, side="left")
        with self._prefill.running():
            yield
