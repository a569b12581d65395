"""Reading a call of `forward` or `generate`: its arguments by name, its mask and positions, the cache it filled."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from salience.core.cache_guard import forget
from salience.core.transformers_names import CACHE_NAMES, cache_in, cache_of_output, release
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.pruned_inputs import slots
from salience.vlm.tower.encoded_views import concatenated
from salience.vlm.tower.tower_merging import Schedule
from salience.vlm.unpruned_prompt import effective


def by_name(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    bound = signature.bind(*args, **kwargs)
    given: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            given.update(value)
        else:
            given[name] = value
    return given


def with_mask(options: dict[str, Any]) -> dict[str, Any]:
    """A forward's arguments inside `generate`, never without both mask and cache.

    generate drops a mask of ones, and positions with gaps would then be read as several packed sequences.
    """
    ids = options.get("input_ids")
    if ids is None or options.get("attention_mask") is not None or cache_in(options) is not None:
        return options
    return {**options, "attention_mask": torch.ones_like(ids)}


def encode(
    adapter: Adapter, given: Mapping[str, Any], schedule: Schedule | None = None
) -> tuple[EncodedViews, dict[str, Any]]:
    """A call's pictures through the tower, and the arguments that neither they nor the pruned prompt replace.

    schedule: where tokens are merged inside the tower, see `Adapter.encode_merged`.
    Raises:  ValueError when the call has no picture, or has its visual tokens in a form that cannot be pruned
    """
    if given.get("inputs_embeds") is not None:
        raise ValueError("inputs_embeds cannot be pruned, their visual tokens are already projected: pass input_ids.")
    if given.get("mm_encoder_outputs"):
        raise ValueError("mm_encoder_outputs cannot be pruned, they are already projected: pass pixel_values.")
    pictures, videos = (given.get(name) is not None for name in ("pixel_values", "pixel_values_videos"))
    if given.get("input_ids") is None or not (pictures or videos):
        raise ValueError("there is no picture to prune: pass input_ids with image tokens, and pixel_values.")
    known = {k: v for k, v in given.items() if v is not None}
    of_pictures = {k: v for k, v in known.items() if k in adapter.image_arguments}
    of_videos = {k: v for k, v in known.items() if k in adapter.video_arguments | {"pixel_values_videos"}}
    parts = [adapter.encode_video(**of_videos)] if videos else []
    if pictures:
        first = adapter.encode(**of_pictures) if schedule is None else adapter.encode_merged(schedule, **of_pictures)
        parts = [first, *parts]
    encoded = parts[0] if len(parts) == 1 else concatenated(*parts)
    for kind in adapter.token_ids:
        slots(adapter, encoded, given["input_ids"], kind)
    arguments = adapter.image_arguments | (adapter.video_arguments if videos else frozenset())
    replaced = arguments | {"input_ids", "attention_mask", "position_ids", "mm_encoder_outputs"}
    return encoded, {k: v for k, v in given.items() if k not in replaced}


def is_text(adapter: Adapter, given: Mapping[str, Any]) -> bool:
    """Whether a call has neither pictures nor tokens that stand for some, so that it is none of pruning's business."""
    visual = ("pixel_values", "pixel_values_videos", "inputs_embeds")
    if given.get("mm_encoder_outputs") or any(given.get(name) is not None for name in visual):
        return False
    ids = given.get("input_ids")
    if ids is None:
        return True
    return not bool(torch.isin(ids, torch.tensor(list(adapter.token_ids.values()), device=ids.device)).any())


def generation_mask(given: dict[str, Any], ids: Tensor, model: Any) -> Tensor:
    """The caller's mask, or the one generate would infer: padding is the pad token, unless that also ends a text."""
    mask: Tensor | None = given.get("attention_mask")
    if mask is not None:
        return mask
    pad, end = (effective(name, given, model) for name in ("pad_token_id", "eos_token_id"))
    ends = end if isinstance(end, list | tuple) else [end]
    return torch.ones_like(ids) if pad is None or pad in ends else ids.ne(pad).long()


def generation_positions(mask: Tensor) -> Tensor:
    """(B, T): as generate counts a text's, 0 from the first token that is not masked; 0 on padding."""
    return (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)


def is_filled(cache: Any) -> bool:
    """Whether a call goes on from a cache that already holds something."""
    return cache is not None and int(cache.get_seq_length()) > 0


def forget_if_empty(cache: Any) -> None:
    """Forget the notes on an empty cache: they describe an earlier sequence."""
    if cache is not None and not is_filled(cache):
        forget(cache)


def cache_of(result: Any, given: Any) -> Any:
    """The cache a call filled: the caller's own, or the one it returns; None if there is none."""
    return cache_of_output(result) if given is None else given


def refuse_lost(options: Mapping[str, Any], prompt: int, visual: Collection[int]) -> None:
    """Inside `generate`, refuse a step without the cache, or without the pictures, that belong to what it reads.

    Without its cache the step's one token would be read as a prompt of its own, without its pictures the placeholders
    as words.

    Args:    prompt: how many columns the prompt has   visual: the placeholders' ids
    Raises:  ValueError when either is missing
    """
    if options.get("mm_encoder_outputs"):
        return
    cache: Any = cache_in(options)
    ids: Any = options.get("input_ids")
    reads_prompt = cache is not None and int(cache.get_seq_length()) < prompt and isinstance(ids, Tensor)
    if reads_prompt and bool(torch.isin(ids, torch.tensor(list(visual), device=ids.device)).any()):
        raise ValueError(
            f"a part of the prompt came without its pictures, which transformers {release()} lost on the way: leave "
            "prefill_chunk_size out, or use a later release that was tested."
        )
    if cache is None:
        raise ValueError(
            f"a decoding step came without the cache of its prompt: transformers {release()} calls it none of "
            f"{', '.join(CACHE_NAMES)}. Use a release that was tested, or use_cache=False; and if a logits processor "
            "of yours calls the model by itself, give it copy.copy(model), which has the same weights and is not "
            "pruned."
        )
