"""VILA-like models: LLaVA's classes with a SigLIP tower and a projector that makes a token of two by two patches.

transformers has no VILA. A `LlavaForConditionalGeneration` with `DownSampleProjector` as its `multi_modal_projector`
has the same shape. Differences from the original:

- Tokens are ordered along the rows of the picture, in VILA-1.5's `mlp_downsample` along its columns.
- The prompt has a placeholder for every token (196 for 27 x 27 patches), there one for a picture.
- Everything is one model, there three folders. The projector's folder loads by `load_state_dict`. `from_pretrained` on
  a folder saved from the whole builds LLaVA's own projector: load such weights into `with_downsampling(model)`.
- There are no tiles and no scales (NVILA's "dynamic" and S2). A video is its frames as pictures.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from salience.vlm.families.llava import LlavaAdapter
from salience.vlm.tower.encoded_views import EncodedViews


class DownSampleProjector(nn.Module):
    """(images, n, d) patches of a square grid -> (images, m, d_llm): two by two side by side, a norm, two layers.

    A grid with an odd side is padded with zeros, on the right and at the bottom.

    Source: VILA, arXiv:2312.07533, and its `mlp_downsample`.  Deviation: the order of the tokens, see the module.
    """

    family: ClassVar[str] = "vila"

    def __init__(self, d_vision: int, d_llm: int) -> None:
        super().__init__()
        wide = 4 * d_vision
        folds = nn.Identity()  # replaces the original's first layer, so that the others keep their numbers
        self.layers = nn.Sequential(
            folds, nn.LayerNorm(wide), nn.Linear(wide, d_llm), nn.GELU(), nn.Linear(d_llm, d_llm)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """(images, n, d) -> (images, m, d_llm)."""
        projected: Tensor = self.layers(fold(patches))
        return projected


def fold(patches: Tensor) -> Tensor:
    """(images, n, d) of a square grid -> (images, m, 4 d): a token's upper two patches, then its lower two."""
    images, n, d = patches.shape
    side = math.isqrt(n)
    square = patches.reshape(images, side, side, d)
    if side % 2:
        square = nn.functional.pad(square, (0, 0, 0, 1, 0, 1))
    half = -(-side // 2)
    blocks = square.reshape(images, half, 2, half, 2, d).transpose(2, 3)  # (images, row, column, 2, 2, d)
    return blocks.reshape(images, half * half, 4 * d)


def with_downsampling(model: Any) -> Any:
    """The same LLaVA model, its projector now a fresh `DownSampleProjector` of its widths, dtype and device."""
    before = next(model.model.multi_modal_projector.parameters())
    d_vision, d_llm = model.config.vision_config.hidden_size, model.config.get_text_config().hidden_size
    model.model.multi_modal_projector = DownSampleProjector(d_vision, d_llm).to(before.device, before.dtype)
    return model


class VilaAdapter(LlavaAdapter):
    """Stages of a `LlavaForConditionalGeneration` with a `DownSampleProjector`.

    Features are the input of the projector's layers, two by two patches side by side, (m, 4 d). A token's received
    attention is the sum over its patches.
    """

    no_merging = "its projector groups patches on their grid"

    @property
    def d_features(self) -> int:
        return 4 * super().d_features

    @property
    def n_tokens(self) -> int | None:
        return math.ceil(self.patches / 2) ** 2

    def project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.projector.layers(features)
        return projected

    def _encoded(self, features: Tensor, pixel_values: Tensor, **more: Any) -> EncodedViews:
        folded = fold(features)
        attend, keys = more["attend"], more["attend_keys"]
        return self.equal_views(
            folded,
            pixel_values.unbind(),
            attend=None if attend is None else lambda: fold(attend()[..., None]).sum(-1),
            attend_keys=None if keys is None else lambda: _mean_keys(keys()),
        )


def _mean_keys(keys: Tensor) -> Tensor:
    """(images, n, heads, d_head) -> (images, m, heads, d_head): the mean over a token's patches."""
    images, n, heads, width = keys.shape
    sums = fold(keys.flatten(2)).reshape(images, -1, 4, heads, width).sum(2)
    counts: Tensor = fold(torch.ones(1, n, 1, device=keys.device)).sum(-1)
    return sums / counts[..., None, None]
