"""Base class of families whose own `get_image_features` gives the tower's hidden states and the projected tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from salience.vlm.families.base import GROUPED_AFTER_TOWER, FamilyAdapter, TowerAttention, need_pictures
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.tower_attention import ProjectedAttention, pooled_keys, pooled_shares, watch_input


class ImageFeaturesAdapter(FamilyAdapter):
    """A family whose own `get_image_features` gives both: the tower's hidden states and the projected tokens.

    So the projector runs on all tokens, at most 2 % of a language model's work, and a kept token is exactly the row
    that the model itself would have. Views have one size and a square grid.
    """

    no_merging = GROUPED_AFTER_TOWER

    @property
    def tower_attention(self) -> TowerAttention:
        return "received"

    @property
    def attention_layer(self) -> Any:
        """The attention module of the tower's last layer."""
        return self.tower.encoder.layers[-1].self_attn

    @property
    def stride(self) -> int:
        """Patches along one side of a token."""
        return 1

    @property
    def n_tokens(self) -> int | None:
        return math.ceil(self.patches / self.stride) ** 2

    def features(self, states: Tensor) -> Tensor:
        """The tower's output (views, patches, C) -> features (views, n, d), as the projector reads them."""
        return states

    def check(self, pixel_values: Tensor) -> None:
        """Raise a ValueError of one sentence when the pixels do not have the family's shape."""
        need_pictures(pixel_values)

    def view_pixels(self, pixel_values: Tensor, views: int) -> Sequence[Tensor]:
        """Pixels of each view."""
        return pixel_values.unbind()

    def view_tokens(self, output: Any, n: int) -> Sequence[Tensor]:
        """Projected tokens (n, d_llm) of each view, from the output of `get_image_features`."""
        tokens: Tensor = output.pooler_output
        return tokens.unbind()

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`."""
        self.refuse_unknown(options)
        self.check(pixel_values)
        with watch_input(self.attention_layer) as seen:
            output = self.model.base_model.get_image_features(pixel_values=pixel_values, **options, return_dict=True)
        attention = ProjectedAttention(self.attention_layer, seen)
        features, readable = self.features(output.last_hidden_state), self.tower_attention is not None
        views, n = features.shape[:2]
        return self.equal_views(
            features,
            self.view_pixels(pixel_values, views),
            projected=lambda: self.view_tokens(output, n),
            attend=(lambda: pooled_shares(attention(), self.stride)) if readable else None,
            attend_keys=(lambda: pooled_keys(attention.keys(), self.stride)) if readable else None,
        )
