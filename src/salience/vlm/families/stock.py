"""Families whose own `get_image_features` says all there is to know: its last hidden state before, its tokens after."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from salience.vlm.families.base import Adapter
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import ProjectedAttention, watch_input


class NamedAdapter(Adapter):
    """A model of one class of transformers.

    Raises:  ValueError when the model is of another
    """

    class_name: str

    def __init__(self, model: Any) -> None:
        import transformers

        if not isinstance(model, getattr(transformers, self.class_name)):
            raise ValueError(f"model must be a {self.class_name}, not a {type(model).__name__}.")
        self.model = model
        self.config: Any = model.config
        self.tower = self._tower()

    @abstractmethod
    def _tower(self) -> Any:
        """The vision tower."""


class StockAdapter(NamedAdapter):
    """A model whose pictures go through its own `get_image_features`, projector included.

    The projector so runs on all tokens, 2 % of a language model's work or less, and a kept token is the very row the
    model would have had.
    """

    @property
    def tower_attention(self) -> Literal["cls", "received"] | None:
        return "received"

    @property
    def attention_layer(self) -> Any:
        """The attention module of the tower's last layer."""
        return self.tower.encoder.layers[-1].self_attn

    @abstractmethod
    def read(self, output: Any, given: dict[str, Any], attention: ProjectedAttention) -> EncodedViews:
        """What methods see of `get_image_features`' output, `given` its arguments, and the last layer's attention."""

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`."""
        unknown = set(options) - self.image_arguments
        if unknown:
            raise ValueError(f"encode takes the options {sorted(self.image_arguments)}, not {sorted(unknown)}.")
        given = {"pixel_values": pixel_values, **options}
        self.check(given)
        with watch_input(self.attention_layer) as seen:
            output = self.model.base_model.get_image_features(**given, return_dict=True)
        return self.read(output, given, ProjectedAttention(self.attention_layer, seen))

    def check(self, given: dict[str, Any]) -> None:
        """Raise a ValueError of one sentence when the arguments' shapes are not the family's."""


def rows_of(tokens: Sequence[Tensor] | Tensor) -> Sequence[Tensor]:
    """`pooler_output`, a list or a tensor by family -> a sequence of (n_i, d)."""
    return tokens.unbind() if isinstance(tokens, Tensor) else list(tokens)


def need_pictures(pixel_values: Tensor) -> None:
    """Raise a ValueError unless the pixels are (images, 3, H, W)."""
    if pixel_values.dim() != 4:
        raise ValueError(f"pixel_values must be (images, 3, H, W), not of shape {tuple(pixel_values.shape)}.")


def as_one_tensor(options: dict[str, Any], kind: str = "image") -> dict[str, Any]:
    """A forward's arguments with the views' tokens in one (1, all tokens, d_llm), for models that read a tensor.

    They go through generate as a list: a tensor could be repeated for beams only if all views had one size.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    outputs = options.get("mm_encoder_outputs") or {}
    output = outputs.get(kind)
    if output is None or isinstance(output.pooler_output, Tensor):
        return options
    joined = BaseModelOutputWithPooling(pooler_output=torch.cat(list(output.pooler_output))[None])
    return {**options, "mm_encoder_outputs": {**outputs, kind: joined}}
