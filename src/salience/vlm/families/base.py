"""Base classes of the families' adapters: interface, defaults, and the adapter of one transformers class.

The shortest way to a new family is `ImageFeaturesAdapter`, in `image_features.py`.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from salience.core.types import Selection, VisualGrid
from salience.vlm.tower.encoded_views import EncodedViews, ReadViews
from salience.vlm.tower.fingerprint import tower_fingerprint
from salience.vlm.tower.tower_merging import Schedule

TowerAttention = Literal["cls", "received"] | None

#: `no_merging` of families that group patches into tokens after the tower.
GROUPED_AFTER_TOWER = "its patches are grouped into tokens on their grid, after the tower"


class Adapter(ABC):
    """One model, seen stage by stage: pixels -> encode -> (select) -> project -> embed -> language model.

    An adapter never changes the model; every stage runs the model's own modules. Defaults match most transformers VLMs.
    """

    model: Any
    tower: Any
    #: Reason why the gaps between positions can't be closed, a clause; empty where they can.
    no_compact: ClassVar[str] = ""
    #: Whether a prompt's pictures are handed over in one piece, because the model's `generate` would mix them up.
    joins_rows: ClassVar[bool] = False
    #: The position that `forward` gives the first token where none are given.
    first_position: ClassVar[int] = 0
    #: Whether the family's videos can be pruned, see `encode_video`.
    has_videos: ClassVar[bool] = False
    #: Kind of views whose tokens the forward reads as one tensor; empty where it reads a list.
    read_as_tensor: str = ""

    # The parts of the model.

    @property
    @abstractmethod
    def language_model(self) -> nn.Module:
        """The language model without its head; takes `inputs_embeds`, `attention_mask`, `position_ids`."""

    @property
    @abstractmethod
    def lm_head(self) -> nn.Module:
        """Hidden states (..., d_llm) -> logits (..., vocabulary)."""

    @property
    def image_token_id(self) -> int:
        """Id of the placeholder: the prompt holds one for every visual token."""
        return int(self.model.config.image_token_id)

    @property
    def token_ids(self) -> dict[str, int]:
        """Ids of the placeholders by kind: "image", and "video" where the family `has_videos`."""
        videos = {"video": int(self.model.config.video_token_id)} if self.has_videos else {}
        return {"image": self.image_token_id, **videos}

    @property
    @abstractmethod
    def d_features(self) -> int:
        """Width of the features that a method sees."""

    @property
    def n_tokens(self) -> int | None:
        """Visual tokens of a view, None where they depend on the picture."""
        return None

    @property
    def device(self) -> torch.device:
        """Device of the vision tower; where accelerate holds its weights elsewhere, its hooks name the device."""
        parameter: Tensor = next(self.tower.parameters())
        hooks = [getattr(module, "_hf_hook", None) for module in self.tower.modules()] if parameter.is_meta else []
        places = [place for hook in hooks if (place := getattr(hook, "execution_device", None)) is not None]
        return torch.device(places[0]) if places else parameter.device

    @property
    def image_arguments(self) -> frozenset[str]:
        """Forward arguments that belong to the pictures and are dropped once these are encoded, as `generate` does."""
        parameters = inspect.signature(self.model.base_model.get_image_features).parameters
        return frozenset(parameters) - {"kwargs"}

    @property
    def video_arguments(self) -> frozenset[str]:
        """Forward arguments that belong to videos and are dropped once these are encoded."""
        encode = getattr(self.model.base_model, "get_video_features", None)
        return frozenset(inspect.signature(encode).parameters) - {"kwargs"} if encode else frozenset()

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of this vision tower, fit for JSON; compare two with `same_tower`."""
        vision = getattr(self.model.config, "vision_config", None)
        names = ("hidden_size", "embed_dim", "num_hidden_layers", "depth", "patch_size", "image_size")
        shape = {name: getattr(vision, name) for name in names if isinstance(getattr(vision, name, None), int)}
        return tower_fingerprint(self.tower, family=str(self.model.config.model_type), d=self.d_features, **shape)

    # What the family can do.

    @property
    def tower_attention(self) -> TowerAttention:
        """Source of `EncodedViews.cls_attention`: [CLS], or received attention in its place; None without either."""
        return None

    @property
    def no_merging(self) -> str:
        """Reason why tokens can't be merged inside the vision tower, a clause; empty where they can."""
        return "the layers of its vision tower are not known here"

    @property
    def merging_layers(self) -> int:
        """Number of tower layers that the features go through, where `no_merging` is empty."""
        return 0

    # Stages.

    @abstractmethod
    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """Run the vision tower.

        Args:    pixel_values: (images, 3, H, W), or the family's own shape   options: of `image_arguments`
        Raises:  ValueError when the family does not take such pixels or options
        """

    def encode_video(self, pixel_values_videos: Tensor, **options: Any) -> EncodedViews:
        """Run the vision tower on videos, where the family `has_videos`; each frame is a view with its own budget.

        Args:    pixel_values_videos: the family's own shape   options: of `video_arguments`
        Raises:  ValueError when the family does not take such pixels or options
        """
        raise ValueError("pixel_values_videos cannot be pruned with this model: pass the frames as pictures.")

    def encode_merged(self, schedule: Schedule, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """Run the vision tower with tokens merged inside it; `EncodedViews.left` holds the remaining tokens of a view.

        Args:    schedule: (tokens of a picture, layers) -> number of tokens merged away in each of `merging_layers`
        Raises:  ValueError as `encode` does, or when tokens can't be merged here
        """
        raise ValueError(f"tokens can't be merged inside the vision tower: {self.no_merging}.")

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Features (..., d) -> visual tokens (..., d_llm), through the model's own projector."""

    def embed(self, input_ids: Tensor, projected: Sequence[Tensor]) -> Tensor:
        """(B, L, d_llm): the prompt's embeddings with the visual tokens in their places, as the model's forward."""
        slot = torch.isin(input_ids, torch.tensor(list(self.token_ids.values()), device=input_ids.device))
        table = self.model.get_input_embeddings()
        weight = getattr(table, "weight", None)  # a method of a quantised table
        rows = int(weight.shape[0] if isinstance(weight, Tensor) else table.num_embeddings)
        known = input_ids.masked_fill(slot, 0) if self.image_token_id >= rows else input_ids
        embeddings: Tensor = table(known)  # (B, L, d_llm)
        visual = torch.cat(list(projected)).to(embeddings.device, embeddings.dtype)  # (visual tokens, d_llm)
        return embeddings.masked_scatter(slot.unsqueeze(-1), visual)

    # Arguments of the model's forward.

    def encoder_outputs(
        self, projected: Sequence[Tensor], deepstack: Sequence[Sequence[Tensor]] = (), kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """`mm_encoder_outputs` for the model's forward.

        Args:    projected: for each view (k, d_llm)   deepstack: as `EncodedViews.deepstack`, kept tokens alone
                 kinds: "image" or "video", for each view; all pictures if empty
        """
        kinds = kinds or ["image"] * len(projected)
        return {
            kind: self.encoder_output(of_kind(projected, kinds, kind), [of_kind(x, kinds, kind) for x in deepstack])
            for kind in dict.fromkeys(kinds)
        }

    def encoder_output(self, projected: list[Tensor], deepstack: list[list[Tensor]]) -> Any:
        """The output object that the model's own encoder would give for views of one kind."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=projected)

    def forward_layout(self, options: dict[str, Any]) -> dict[str, Any]:
        """A forward's arguments with `mm_encoder_outputs` as this forward reads it: lists, or one tensor of all views.

        `generate` keeps lists: it could repeat a tensor for beams only if all views had one size.
        """
        outputs = options.get("mm_encoder_outputs") or {}
        output = outputs.get(self.read_as_tensor)
        if output is None or isinstance(output.pooler_output, Tensor):
            return options
        joined = type(output)(**{**output, "pooler_output": torch.cat(list(output.pooler_output))[None]})
        return {**options, "mm_encoder_outputs": {**outputs, self.read_as_tensor: joined}}

    def position_ids(self, given: Mapping[str, Any], mask: Tensor, *, generating: bool) -> Tensor:
        """(B or 1, T), or (axes, B, T): positions of the whole prompt, counted as the model does if none are given.

        Args:    given: the call's arguments   mask: (B, T)   generating: whether `generate` counts, or `forward`
        """
        if generating:
            return (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
        return self.first_position + torch.arange(mask.shape[1], device=mask.device)[None]

    def set_rope_deltas(self, deltas: Tensor | None) -> None:  # noqa: B027 - most families keep no such state
        """Set `rope_deltas` as the model's own forward does: (B, 1), positions less tokens; None leaves it alone."""

    # Helpers of the families.

    def refuse_unknown(self, options: Mapping[str, Any]) -> None:
        """Raise a ValueError for options that are not of `image_arguments`."""
        if unknown := set(options) - self.image_arguments:
            raise ValueError(f"encode takes the options {sorted(self.image_arguments)}, not {sorted(unknown)}.")

    def equal_views(
        self,
        features: Tensor,
        pixels: Sequence[Tensor],
        *,
        grid: VisualGrid | None = None,
        projected: Callable[[], Sequence[Tensor]] | None = None,
        attend: ReadViews | None = None,
        attend_keys: ReadViews | None = None,
        left: Sequence[Selection] = (),
    ) -> EncodedViews:
        """Views of one size, features (views, n, d).

        Args:    grid: of every view, a square if None
                 projected: the projected tokens that the model itself has; None projects all features
        """
        side = math.isqrt(features.shape[1])
        return EncodedViews(
            views=features.unbind(),
            grids=[grid or VisualGrid(rows=side, columns=side)] * features.shape[0],
            pixels=pixels,
            project=self.project,
            project_all=projected or (lambda: self.project(features).unbind()),
            attend=attend,
            attend_keys=attend_keys,
            left=left,
            stacked=features,
        )


class FamilyAdapter(Adapter):
    """Adapter of one or more transformers classes, whose modules have the paths given here.

    Raises:  ValueError when the model is of another class
    """

    class_names: ClassVar[str]  # separated by spaces
    tower_path: ClassVar[str] = "model.vision_tower"
    projector_path: ClassVar[str] = "model.multi_modal_projector"
    language_model_path: ClassVar[str] = "model.language_model"
    lm_head_path: ClassVar[str] = "lm_head"

    def __init__(self, model: Any) -> None:
        import transformers

        names = self.class_names.split()
        classes: Any = tuple(getattr(transformers, name) for name in names)
        if not isinstance(model, classes):
            raise ValueError(f"model must be a {' or a '.join(names)}, not a {type(model).__name__}.")
        self.model = model
        self.config: Any = model.config
        self.tower = model.get_submodule(self.tower_path)

    @property
    def language_model(self) -> nn.Module:
        module: nn.Module = self.model.get_submodule(self.language_model_path)
        return module

    @property
    def lm_head(self) -> nn.Module:
        module: nn.Module = self.model.get_submodule(self.lm_head_path)
        return module

    @property
    def projector(self) -> Any:
        """The module that turns features into visual tokens."""
        return self.model.get_submodule(self.projector_path)

    @property
    def d_features(self) -> int:
        return int(self.config.vision_config.hidden_size)

    @property
    def patches(self) -> int:
        """Patches along one side of a view."""
        vision = self.config.vision_config
        return int(vision.image_size) // int(vision.patch_size)

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.projector(features)
        return projected


class RopeIndexPositions(Adapter):
    """Positions of several axes, as the model's own `get_rope_index` counts them."""

    def position_ids(self, given: Mapping[str, Any], mask: Tensor, *, generating: bool) -> Tensor:
        """(3, B, T) in forward, (4, B, T) in generate, the text's positions first; see `Adapter.position_ids`."""
        text = super().position_ids(given, mask, generating=True)
        count = self.model.base_model.get_rope_index
        names = set(inspect.signature(count).parameters) - {"attention_mask", "kwargs"}
        if "mm_token_type_ids" in names and given.get("mm_token_type_ids") is None:
            if not generating:
                raise ValueError("mm_token_type_ids is missing: pass it along, as the processor gives it.")
            return text.expand(4, -1, -1)  # generate then counts all tokens as text
        known = {name: given[name] for name in names if given.get(name) is not None}
        axes: Tensor = count(**known, attention_mask=mask)[0]
        return torch.cat([text[None], axes]) if generating else axes

    def set_rope_deltas(self, deltas: Tensor | None) -> None:
        if deltas is not None:
            self.model.base_model.rope_deltas = deltas


def of_kind(values: Sequence[Tensor], kinds: Sequence[str], kind: str) -> list[Tensor]:
    """The views' values of one kind."""
    return [value for value, its in zip(values, kinds, strict=True) if its == kind]


def need_pictures(pixel_values: Tensor) -> None:
    """Raise a ValueError unless the pixels are (images, 3, H, W)."""
    if pixel_values.dim() != 4:
        raise ValueError(f"pixel_values must be (images, 3, H, W), not of shape {tuple(pixel_values.shape)}.")
