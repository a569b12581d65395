"""Arguments of one `forward` or `generate` call: pictures, mask, cache."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salience.core.cache_guard import forget
from salience.core.transformers_names import CACHE_NAMES, cache_in, named_cache, release
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.pruned_inputs import slots
from salience.vlm.tower.encoded_views import concatenated
from salience.vlm.tower.tower_merging import Schedule
from salience.vlm.unpruned_prompt import effective

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

_PICTURES, _VIDEOS = "pixel_values", "pixel_values_videos"


@dataclass(frozen=True, eq=False)
class CallArgs:
    """The arguments of one call, by name. An argument that is None counts as absent."""

    values: dict[str, Any]

    @classmethod
    def bind(cls, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any], cache: str) -> CallArgs:
        """The arguments of a call as it was made; `cache` is the name under which the model takes its cache.

        Raises:  ValueError when two different caches are passed
        """
        values = dict(**signature.bind_partial(*args).arguments, **kwargs)
        if "inputs" in signature.parameters and (inputs := values.pop("inputs", None)) is not None:
            values["input_ids"] = inputs  # generate's two names for the prompt
        return cls(named_cache(values, cache))

    def get(self, name: str) -> Any:
        """An argument; None where it is absent."""
        return self.values.get(name)

    def tensor(self, name: str) -> Tensor | None:
        """An argument that is a tensor; None where it is absent or something else."""
        value = self.values.get(name)
        return value if isinstance(value, Tensor) else None

    @property
    def ids(self) -> Tensor:
        """(B, T): `input_ids`, of a call that is known to have them."""
        ids: Tensor = self.values["input_ids"]
        return ids

    @property
    def cache(self) -> Cache | None:
        """The caller's cache."""
        return cache_in(self.values)

    @property
    def has_encoded(self) -> bool:
        """Whether the pictures come encoded and projected."""
        return bool(self.get("mm_encoder_outputs"))

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures or videos, as pixels or encoded."""
        return self.has_encoded or any(self.get(name) is not None for name in (_PICTURES, _VIDEOS))

    def is_text(self, visual_ids: Collection[int]) -> bool:
        """Whether the call has neither pictures nor placeholders of some, so that there is nothing to prune."""
        if self.has_pictures or self.get("inputs_embeds") is not None:
            return False
        ids = self.get("input_ids")
        return ids is None or not _holds(ids, visual_ids)

    def mask(self) -> Tensor:
        """(B, T): the caller's mask, or one of ones."""
        mask: Tensor | None = self.get("attention_mask")
        return torch.ones_like(self.ids) if mask is None else mask

    def generation_mask(self, model: PreTrainedModel) -> Tensor:
        """The caller's mask, or the one that generate infers: the pad token is padding unless it also ends a text."""
        if self.get("attention_mask") is None:
            pad, end = (effective(name, self.values, model) for name in ("pad_token_id", "eos_token_id"))
            ends = end if isinstance(end, list | tuple) else [end]
            if pad is not None and pad not in ends:
                return self.ids.ne(pad).long()
        return self.mask()

    def step(self) -> dict[str, Any]:
        """A forward's arguments inside `generate`, never without both mask and cache.

        generate drops a mask of ones, and positions with gaps would then be read as several packed sequences.
        """
        bare = self.get("attention_mask") is None and self.cache is None
        if self.get("input_ids") is None or not bare:
            return self.values
        return {**self.values, "attention_mask": torch.ones_like(self.ids)}

    def refuse_lost(self, prompt: int, visual_ids: Collection[int]) -> None:
        """Inside `generate`, raise a ValueError for a step without the cache, or the pictures, that it depends on.

        Its one token would be read as a prompt, or its placeholders as words.   prompt: columns of the prompt
        """
        if self.has_encoded:
            return
        cache, ids = self.cache, self.tensor("input_ids")
        reads_prompt = cache is not None and cached_columns(cache) < prompt and ids is not None
        if reads_prompt and _holds(ids, visual_ids):
            raise ValueError(
                f"a part of the prompt came without its pictures, which transformers {release()} lost on the way: "
                "leave prefill_chunk_size out, or use a later release that was tested."
            )
        if cache is None:
            raise ValueError(
                f"a decoding step came without the cache of its prompt: transformers {release()} calls it none of "
                f"{', '.join(CACHE_NAMES)}. Use a release that was tested, or use_cache=False; and if a logits "
                "processor of yours calls the model by itself, give it copy.copy(model), which has the same weights "
                "and is not pruned."
            )


def encode(adapter: Adapter, args: CallArgs, schedule: Schedule | None = None) -> tuple[EncodedViews, dict[str, Any]]:
    """Run a call's pictures through the vision tower.

    Args:    schedule: where tokens are merged inside the tower, see `Adapter.encode_merged`
    Returns: the encoded pictures, and the arguments that neither they nor the pruned prompt replace
    Raises:  ValueError when the call has no picture, or has its visual tokens in a form that cannot be pruned
    """
    if args.get("inputs_embeds") is not None:
        raise ValueError("inputs_embeds cannot be pruned, their visual tokens are already projected: pass input_ids.")
    if args.has_encoded:
        raise ValueError("mm_encoder_outputs cannot be pruned, they are already projected: pass pixel_values.")
    pictures, videos = (args.get(name) is not None for name in (_PICTURES, _VIDEOS))
    if args.get("input_ids") is None or not (pictures or videos):
        raise ValueError("there is no picture to prune: pass input_ids with image tokens, and pixel_values.")
    known = {k: v for k, v in args.values.items() if v is not None}
    of_pictures = {k: v for k, v in known.items() if k in adapter.image_arguments}
    of_videos = {k: v for k, v in known.items() if k in adapter.video_arguments | {_VIDEOS}}
    parts = [adapter.encode_video(**of_videos)] if videos else []
    if pictures:
        first = adapter.encode(**of_pictures) if schedule is None else adapter.encode_merged(schedule, **of_pictures)
        parts = [first, *parts]
    encoded = parts[0] if len(parts) == 1 else concatenated(*parts)
    for kind in adapter.token_ids:
        slots(adapter, encoded, args.ids, kind)  # raises where the prompt does not fit the pictures
    arguments = adapter.image_arguments | (adapter.video_arguments if videos else frozenset())
    replaced = arguments | {"input_ids", "attention_mask", "position_ids", "mm_encoder_outputs"}
    return encoded, {k: v for k, v in args.values.items() if k not in replaced}


def generation_positions(mask: Tensor) -> Tensor:
    """(B, T): positions as generate counts a text's, 0 from the first token that is not masked; 0 on padding."""
    return (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)


def cached_columns(cache: Cache | None) -> int:
    """Columns that a cache holds; 0 where there is no cache."""
    return 0 if cache is None else int(cache.get_seq_length())


def forget_if_empty(cache: Cache | None) -> None:
    """Forget the notes on an empty cache: they describe an earlier sequence."""
    if cache is not None and not cached_columns(cache):
        forget(cache)


def _holds(ids: Tensor | None, visual_ids: Collection[int]) -> bool:
    return ids is not None and bool(torch.isin(ids, torch.tensor(list(visual_ids), device=ids.device)).any())
