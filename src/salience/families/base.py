"""What a family tells the rest: how to encode, project and embed, stage by stage, and where its image tokens are."""

from __future__ import annotations

import importlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.types import TokenContext, VisualGrid

# One static table: `config.model_type` -> "module:class".
FAMILIES = {"llava": "salience.families.llava:LlavaAdapter"}


@dataclass(kw_only=True, eq=False)
class Encoded:
    """The vision tower's output for a batch of pictures, before the projector.

    features: (images, n, d).   grid: how the n tokens lie on a picture.   pixel_values: (images, 3, H, W), as given.
    """

    features: Tensor
    grid: VisualGrid
    pixel_values: Tensor
    attend: Callable[[], Tensor]
    project: Callable[[Tensor], Tensor]
    _cls_attention: Tensor | None = field(default=None, init=False)

    def cls_attention(self) -> Tensor:
        """(images, n) float32: what [CLS] pays each token, mean over heads; computed at the first call.

        Raises:  ValueError when the tower has no [CLS] token
        """
        if self._cls_attention is None:
            self._cls_attention = self.attend()
        return self._cls_attention

    def digest(self, image: int) -> int:
        """A 32-bit number made of one picture's pixels: equal for equal pixels, wherever it stands in the batch."""
        pixels = self.pixel_values[image].detach().reshape(-1)
        step = max(1, pixels.numel() // 4096)  # enough to tell pictures apart, cheap enough never to be noticed
        return zlib.crc32(pixels[::step].double().cpu().numpy().tobytes())

    def context(self, image: int, needs: frozenset[str] = frozenset()) -> TokenContext:
        """What a method with these `needs` sees of one picture."""
        return TokenContext(
            features=self.features[image],
            grid=self.grid,
            image_index=image,
            cls_attention=self.cls_attention()[image] if "cls_attention" in needs else None,
            projected=self.project(self.features[image]) if "projected" in needs else None,
            digest=self.digest(image) if "digest" in needs else None,
        )


class Adapter(ABC):
    """One model, seen stage by stage: pixels -> encode -> (select) -> project -> embed -> language model.

    Nothing here changes the model; every stage is what the model's own forward runs.
    """

    model: Any

    @property
    @abstractmethod
    def language_model(self) -> nn.Module:
        """The language model without its head; takes `inputs_embeds`, `attention_mask`, `position_ids`."""

    @property
    @abstractmethod
    def lm_head(self) -> nn.Module:
        """Hidden states (..., d_llm) -> logits (..., vocabulary)."""

    @property
    @abstractmethod
    def image_token_id(self) -> int:
        """The placeholder's id: one stands in the prompt for every visual token."""

    @property
    @abstractmethod
    def d_features(self) -> int:
        """Width of the features a method sees."""

    @property
    @abstractmethod
    def n_tokens(self) -> int | None:
        """Visual tokens of a picture, None where that depends on the picture."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the vision tower is."""

    @property
    @abstractmethod
    def has_cls_attention(self) -> bool:
        """Whether the tower has a [CLS] token whose attention can be read."""

    @property
    @abstractmethod
    def image_arguments(self) -> frozenset[str]:
        """The forward arguments that belong to the pictures and go once they are encoded."""

    @abstractmethod
    def encode(self, pixel_values: Tensor, **options: Any) -> Encoded:
        """Run the vision tower.

        Args:    pixel_values: (images, 3, H, W)   options: of `image_arguments`
        Raises:  ValueError when the pixels or options are not what the family takes
        """

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Features (..., d) -> visual tokens (..., d_llm), through the model's own projector."""

    @abstractmethod
    def encoder_outputs(self, projected: Sequence[Tensor]) -> dict[str, Any]:
        """`mm_encoder_outputs` for the model's forward, of each picture's (k, d_llm) tokens."""

    @abstractmethod
    def embed(self, input_ids: Tensor, projected: Sequence[Tensor]) -> Tensor:
        """(B, L, d_llm): the prompt's embeddings with the visual tokens in their places, as the model's forward has."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What tells this vision tower from others, fit for JSON; compare with `same_tower`."""


def adapter_for(model: Any) -> Adapter:
    """The adapter of a transformers model.

    Raises:  ValueError when the model is of no family that is known here, with the ones that are
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in FAMILIES:
        raise ValueError(
            f"model must be of a known family ({', '.join(sorted(FAMILIES))}), not {type(model).__name__}"
            + (f" of type {kind!r}." if kind else ".")
        )
    module, _, name = FAMILIES[kind].partition(":")
    adapter: Adapter = getattr(importlib.import_module(module), name)(model)
    return adapter


def tower_fingerprint(tower: nn.Module, /, **shape: Any) -> dict[str, Any]:
    """`shape` and a few of the tower's weights: one from the middle of each of at most 32 parameters."""
    parameters = [p for _, p in sorted(tower.named_parameters()) if p.is_floating_point() and p.dim() > 1]
    chosen = parameters[:: max(1, len(parameters) // 32)][:32]
    with torch.no_grad():
        sample = [float(p.reshape(-1)[p.numel() // 2]) for p in chosen]
    return {**shape, "sample": [float(f"{value:.6g}") for value in sample]}


def same_tower(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> bool:
    """Whether two fingerprints are of one vision tower, in whatever dtype each was loaded."""
    if not a or not b or {**a, "sample": None} != {**b, "sample": None}:
        return False
    x, y = torch.tensor(a["sample"]), torch.tensor(b["sample"])
    # bfloat16 keeps 8 bits: rounding moves a weight by at most 2**-9 of itself, .2 %, so 1 % passes and chance does not
    return x.shape == y.shape and bool(torch.isclose(x, y, rtol=1e-2, atol=1e-6).all())
