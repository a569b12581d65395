"""What a family tells the rest: how to encode, project and embed, stage by stage, and where its image tokens are."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.fingerprint import tower_fingerprint
from salience.vlm.tower.tower_merging import Schedule


class Adapter(ABC):
    """One model, seen stage by stage: pixels -> encode -> (select) -> project -> embed -> language model.

    Nothing here changes the model; every stage is what the model's own forward runs. What a family does not say, it has
    as most of transformers' have it.
    """

    model: Any
    tower: Any

    @property
    def language_model(self) -> nn.Module:
        """The language model without its head; takes `inputs_embeds`, `attention_mask`, `position_ids`."""
        module: nn.Module = self.model.model.language_model
        return module

    @property
    def lm_head(self) -> nn.Module:
        """Hidden states (..., d_llm) -> logits (..., vocabulary)."""
        module: nn.Module = self.model.lm_head
        return module

    @property
    def image_token_id(self) -> int:
        """The placeholder's id: one stands in the prompt for every visual token."""
        return int(self.model.config.image_token_id)

    @property
    @abstractmethod
    def d_features(self) -> int:
        """Width of the features a method sees."""

    @property
    def n_tokens(self) -> int | None:
        """Visual tokens of a view, None where that depends on the picture."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the vision tower runs; where accelerate has its weights elsewhere, its hooks say where that is."""
        parameter: Tensor = next(self.tower.parameters())
        hooks = [getattr(module, "_hf_hook", None) for module in self.tower.modules()] if parameter.is_meta else []
        places = [place for hook in hooks if (place := getattr(hook, "execution_device", None)) is not None]
        return torch.device(places[0]) if places else parameter.device

    @property
    def has_cls_attention(self) -> bool:
        """Whether the tower has a [CLS] token whose attention can be read."""
        return False

    @property
    def tower_attention(self) -> Literal["cls", "received"] | None:
        """Source of `EncodedViews.cls_attention`: [CLS], or received attention in its place; None without either."""
        return "cls" if self.has_cls_attention else None

    @property
    def image_arguments(self) -> frozenset[str]:
        """The forward arguments that belong to the pictures and go once they are encoded: generate's own rule."""
        parameters = inspect.signature(self.model.base_model.get_image_features).parameters
        return frozenset(parameters) - {"kwargs"}

    @property
    def token_ids(self) -> dict[str, int]:
        """The placeholders' ids by kind: "image", and "video" where the family's videos can be pruned."""
        return {"image": self.image_token_id}

    @property
    def video_arguments(self) -> frozenset[str]:
        """The forward arguments that belong to videos and go once they are encoded."""
        encode = getattr(self.model.base_model, "get_video_features", None)
        return frozenset(inspect.signature(encode).parameters) - {"kwargs"} if encode else frozenset()

    @property
    def no_compact(self) -> str:
        """Why the gaps between positions can't be closed, a clause; empty where they can."""
        return ""

    @property
    def joins_rows(self) -> bool:
        """Whether a prompt's pictures are handed to the model in one piece, for a `generate` that would mix them up."""
        return False

    @abstractmethod
    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """Run the vision tower.

        Args:    pixel_values: (images, 3, H, W), or as the family has it   options: of `image_arguments`
        Raises:  ValueError when the pixels or options are not what the family takes
        """

    def encode_video(self, pixel_values_videos: Tensor, **options: Any) -> EncodedViews:
        """Run the vision tower on videos, where `token_ids` has "video"; each frame is a view with its own budget.

        Args:    pixel_values_videos: as the family has it   options: of `video_arguments`
        Raises:  ValueError when the pixels or options are not what the family takes
        """
        raise ValueError("pixel_values_videos cannot be pruned with this model: pass the frames as pictures.")

    @property
    def no_merging(self) -> str:
        """Why tokens can't be merged inside the vision tower, a clause; empty where they can."""
        return "the layers of its vision tower are not known here"

    @property
    def merging_layers(self) -> int:
        """How many of the tower's layers the features go through, where `no_merging` is empty."""
        return 0

    def encode_merged(self, schedule: Schedule, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """Run the vision tower with tokens merged inside it; `EncodedViews.left` says what is left of each view.

        Args:    schedule: (tokens of a picture, layers) -> how many are merged away in each of `merging_layers`
        Raises:  ValueError as `encode` does, or when tokens can't be merged here
        """
        raise ValueError(f"tokens can't be merged inside the vision tower: {self.no_merging}.")

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Features (..., d) -> visual tokens (..., d_llm), through the model's own projector."""

    def encoder_outputs(
        self, projected: Sequence[Tensor], deepstack: Sequence[Sequence[Tensor]] = (), kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """`mm_encoder_outputs` for the model's forward.

        Args:    projected: for each view (k, d_llm)   deepstack: as `EncodedViews.deepstack`, kept tokens alone
                 kinds: "image" or "video", for each view; all pictures if empty
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        kinds = kinds or ["image"] * len(projected)
        return {
            kind: BaseModelOutputWithPooling(pooler_output=of_kind(projected, kinds, kind))
            for kind in dict.fromkeys(kinds)
        }

    def as_forward_reads(self, options: dict[str, Any]) -> dict[str, Any]:
        """A forward's arguments with `mm_encoder_outputs` in the shape it reads: generate splits and repeats a list."""
        return options

    def position_ids(self, given: Mapping[str, Any], mask: Tensor, *, generating: bool) -> Tensor:
        """(B or 1, T), or (axes, B, T): the whole prompt's positions as the model counts them where none are given.

        Args:    given: the call's arguments   mask: (B, T)   generating: whether `generate` counts, or `forward`
        """
        if generating:
            return (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
        return self.first_position + torch.arange(mask.shape[1], device=mask.device)[None]

    @property
    def first_position(self) -> int:
        """The position that `forward` gives the first token where none are given."""
        return 0

    def settle(self, deltas: Tensor | None) -> None:  # noqa: B027 - most families keep no such state
        """Leave on the model what its own call would have: `deltas` (B, 1), positions less tokens, or None."""

    def embed(self, input_ids: Tensor, projected: Sequence[Tensor]) -> Tensor:
        """(B, L, d_llm): the prompt's embeddings with the visual tokens in their places, as the model's forward has."""
        slot = torch.isin(input_ids, torch.tensor(list(self.token_ids.values()), device=input_ids.device))
        table = self.model.get_input_embeddings()
        weight = getattr(table, "weight", None)  # of a quantised table a method
        rows = int(weight.shape[0] if isinstance(weight, Tensor) else table.num_embeddings)
        known = input_ids.masked_fill(slot, 0) if self.image_token_id >= rows else input_ids
        embeddings: Tensor = table(known)  # (B, L, d_llm)
        visual = torch.cat(list(projected)).to(embeddings.device, embeddings.dtype)  # (visual tokens, d_llm)
        return embeddings.masked_scatter(slot.unsqueeze(-1), visual)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this vision tower from others, fit for JSON; compare with `same_tower`."""
        vision = getattr(self.model.config, "vision_config", None)
        names = ("hidden_size", "embed_dim", "num_hidden_layers", "depth", "patch_size", "image_size")
        shape = {name: getattr(vision, name) for name in names if isinstance(getattr(vision, name, None), int)}
        return tower_fingerprint(self.tower, family=str(self.model.config.model_type), d=self.d_features, **shape)


def of_kind(values: Sequence[Tensor], kinds: Sequence[str], kind: str) -> list[Tensor]:
    """The views' values of one kind."""
    return [value for value, its in zip(values, kinds, strict=True) if its == kind]
