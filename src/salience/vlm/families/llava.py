"""LLaVA-1.5: a CLIP or SigLIP tower, a two-layer projector, any language model (`LlavaForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.precision import full_precision
from salience.core.types import VisualGrid
from salience.ssm.layers.projections import is_plain
from salience.vlm.families.base import FamilyAdapter, TowerAttention, need_pictures
from salience.vlm.thread_hooks import ThreadHook, hooked
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.fingerprint import tower_fingerprint
from salience.vlm.tower.tower_attention import ProjectedAttention, watch_input
from salience.vlm.tower.tower_merging import Schedule, merged_tokens

# Towers whose tokens are a fixed grid of patches -> how many tokens stand before the patches.
_PREFIX = {"clip_vision_model": 1, "siglip_vision_model": 0}


class LlavaAdapter(FamilyAdapter):
    """Stages of one `LlavaForConditionalGeneration`, the model unmodified.

    Raises:  ValueError when the model is no LlavaForConditionalGeneration, its tower is not one of CLIP and SigLIP, or
             [CLS] is one of the model's visual tokens
    """

    class_names = "LlavaForConditionalGeneration"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        kind = self.config.vision_config.model_type
        if kind not in _PREFIX:
            raise ValueError(f"the vision tower must be one of {', '.join(sorted(_PREFIX))}, not {kind!r}.")
        self.prefix = _PREFIX[kind]
        self._check_strategy(self.config.vision_feature_select_strategy)

    def _check_strategy(self, strategy: str) -> None:
        wanted, has = ("default", "with") if self.prefix else ("full", "without")
        if strategy != wanted:
            raise ValueError(
                f"vision_feature_select_strategy must be {wanted!r} for a tower {has} [CLS], not {strategy!r}."
            )

    @property
    def d_features(self) -> int:
        layers = self.config.vision_feature_layer
        return super().d_features * (1 if isinstance(layers, int) else len(layers))

    @property
    def n_tokens(self) -> int | None:
        return self.patches**2

    @property
    def tower_attention(self) -> TowerAttention:
        if self._indices(None)[-1] == 0:  # the embeddings: no layer's attention belongs to them
            return None
        return "cls" if self.prefix else "received"

    def _indices(self, layers: int | Sequence[int] | None) -> list[int]:
        """Indices of the tower's hidden states that are the features; 0 is the embeddings."""
        layers = self.config.vision_feature_layer if layers is None else layers
        count = int(self.config.vision_config.num_hidden_layers) + 1
        indices = [layers] if isinstance(layers, int) else list(layers)
        if not indices or any(not -count <= i < count for i in indices):
            raise ValueError(f"vision_feature_layer must lie between {-count} and {count - 1}, not {layers!r}.")
        return [i % count for i in indices]

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`; features are `hidden_states[vision_feature_layer]` without [CLS], (images, n, d)."""
        self.refuse_unknown(options)
        self._check(pixel_values, options)
        features, attend = self.states(pixel_values, options)
        return self._encoded(features, pixel_values, attend=attend, attend_keys=None if attend is None else attend.keys)

    def _check(self, pixel_values: Tensor, options: Mapping[str, Any]) -> None:
        need_pictures(pixel_values)
        if options.get("image_sizes") is not None:
            raise ValueError("image_sizes is for towers that take pictures of any size, which are not pruned yet.")

    def _encoded(self, features: Tensor, pixel_values: Tensor, **more: Any) -> EncodedViews:
        """Views of features (images, n, d), one for each picture."""
        patch = int(self.config.vision_config.patch_size)
        grid = VisualGrid(rows=pixel_values.shape[-2] // patch, columns=pixel_values.shape[-1] // patch)
        return self.equal_views(features, pixel_values.unbind(), grid=grid, **more)

    @property
    def no_merging(self) -> str:
        return "" if self.merging_layers else "its features are not one layer's output"

    @property
    def merging_layers(self) -> int:
        indices = self._indices(None)
        return indices[0] if len(indices) == 1 else 0

    def encode_merged(self, schedule: Schedule, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode_merged`."""
        self._check(pixel_values, options)
        indices = self._indices(options.get("vision_feature_layer"))
        if self.no_merging or indices != self._indices(None):
            raise ValueError(
                "vision_feature_layer must be the model's own, and one layer, to merge tokens in the tower."
            )
        tied = bool(getattr(self.tower.config, "tie_last_hidden_states", None))  # see `states`
        merged = merged_tokens(
            self.tower,
            pixel_values,
            layers=indices[0],
            prefix=self.prefix,
            schedule=schedule,
            normed=tied and not self.prefix and indices[0] == int(self.config.vision_config.num_hidden_layers),
        )
        return self._encoded(merged.spread(), pixel_values, left=merged.selections())

    def states(self, pixel_values: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, ProjectedAttention | None]:
        """Pictures (images, 3, H, W) -> the layers' hidden states without [CLS], (images, n, d), and their attention.

        Raises:  ValueError when the strategy does not go with the tower, or there are no such layers
        """
        self._check_strategy(
            options.get("vision_feature_select_strategy") or self.config.vision_feature_select_strategy
        )
        layer = options.get("vision_feature_layer")
        indices = self._indices(layer)
        layers = _layers(self.tower)
        attention = layers[indices[-1] - 1].self_attn
        embedded: AbstractContextManager[dict[str, Any]] = watch_input(layers[0]) if 0 in indices else nullcontext({})
        with _outputs(layers, indices) as seen, embedded as first, watch_input(attention) as attended:
            output = self.tower(pixel_values, return_dict=True)
        if 0 in indices:
            seen[0] = first["hidden_states"]
        if getattr(self.tower.config, "tie_last_hidden_states", None):  # else the last is the last layer's, not normed
            seen[len(layers)] = output.last_hidden_state
        states = [seen[i][:, self.prefix :] for i in indices]
        layer = self.config.vision_feature_layer if layer is None else layer
        # a list is concatenated even if it holds one layer, as the model's own forward does
        features = states[0] if isinstance(layer, int) else torch.cat(states, dim=-1)
        if indices[-1] == 0:  # the embeddings: no layer's attention belongs to them
            return features, None
        return features, (_ClsAttention if self.prefix else ProjectedAttention)(attention, attended)

    def fingerprint(self) -> dict[str, Any]:
        vision = self.config.vision_config
        return tower_fingerprint(
            self.tower,
            family=str(self.config.model_type),
            tower=str(vision.model_type),
            hidden_size=int(vision.hidden_size),
            layers=int(vision.num_hidden_layers),
            patch_size=int(vision.patch_size),
            image_size=int(vision.image_size),
            feature_layers=self._indices(None),
        )


def _layers(tower: Any) -> Any:
    """The tower's encoder layers; in earlier transformers they are in a submodule."""
    return getattr(tower, "vision_model", tower).encoder.layers


@contextmanager
def _outputs(layers: Any, indices: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the outputs of layers while this thread runs the tower, counted from 1.

    Hooks of our own replace `output_hidden_states`, whose recording hooks transformers never removes.
    """
    seen: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[index] = output[0] if isinstance(output, tuple) else output

        return hook

    with hooked(*(ThreadHook(layers[index - 1], "after", keep(index)) for index in indices if index)):
        yield seen


class _ClsAttention(ProjectedAttention):
    """softmax(q_cls K^T / sqrt(d_head)) for the row of [CLS] alone, with any attention kernel.

    Per head q . (W x + b) = (W^T q) . x + q . b. Softmax drops the last term, equal for all tokens, so no keys are
    computed. The layer itself computes them if its weight is no plain matrix in memory or it has a hook.
    """

    @torch.no_grad()
    def __call__(self) -> Tensor:
        attention, hidden = self.attention, self.seen["hidden_states"]
        x = hidden.float()  # (images, 1 + n, d)
        heads, d_head = int(attention.num_heads), int(attention.head_dim)
        query = attention.q_proj(hidden[:, 0]).float().unflatten(-1, (heads, d_head))  # (images, heads, d_head)
        layer = attention.k_proj
        if is_plain(layer) and type(layer.weight) is nn.Parameter:
            weight = layer.weight.float().view(heads, d_head, -1)  # (heads, d_head, d)
            with full_precision(x.device):
                folded = torch.einsum("ihk,hkd->ihd", query, weight)  # (images, heads, d)
                logits = torch.matmul(folded, x.transpose(1, 2)) * attention.scale  # (images, heads, 1 + n)
        else:
            key = layer(hidden).float().view(*x.shape[:2], heads, d_head)  # (images, 1 + n, heads, d_head)
            with full_precision(x.device):
                logits = torch.einsum("ihk,inhk->ihn", query, key) * attention.scale
        shares: Tensor = logits.softmax(-1).mean(1)[:, 1:]  # (images, n)
        return shares

    @torch.no_grad()
    def keys(self) -> Tensor:
        """(images, n, heads, d_head) float32: the keys of all tokens but [CLS]."""
        keys: Tensor = self.attention.k_proj(self.seen["hidden_states"][:, 1:]).float()  # (images, n, d)
        return keys.view(*keys.shape[:2], int(self.attention.num_heads), -1)
