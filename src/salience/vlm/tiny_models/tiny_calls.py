"""A tiny random model of any class, and the arguments of a call with pictures in the form that this class takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from salience.vlm.families import adapter_for
from salience.vlm.tiny_models.tiny_config import FIRST_WORD, first_number, tiny_config

WORDS = range(FIRST_WORD, 150)
MARKS = ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids")  # arguments that tell pictures from text
GRIDS = ((1, 4, 6), (1, 4, 4), (1, 8, 4))  # patches of one picture: time, height, width


def tiny_model(kind: type[Any], config: Any, *, is_small: bool = False) -> Any:
    """A random model of a class in float32 on the CPU, with weights large enough that every token changes the logits.

    Args:    config: of any size, made small here unless it `is_small`
    Raises:  whatever the class raises where it can't be built
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        model = kind._from_config(config if is_small else tiny_config(config), dtype=torch.float32).eval()
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:  # above the usual .02, so that attention is uneven and logits are of order one
                parameter.copy_(torch.randn(parameter.shape) * (0.04 if "vis" in name else 0.12))
    return model


def tiny_batch(model: Any, counts: Sequence[int] = (1, 2), *, seed: int = 0) -> dict[str, Any]:
    """Arguments of a call: one row for each count, with that many pictures and words around each, padded on the left.

    Raises:  ValueError when the model is of no family known here, or takes pictures in none of the known forms
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    given, sizes = _pictures(model, sum(counts), generator)
    rest, token = iter(sizes), adapter_for(model).image_token_id
    rows: list[list[int]] = []
    for row, count in enumerate(counts):
        words = _words(2 + row, generator)
        for _ in range(count):
            words += [token] * next(rest) + _words(3, generator)
        rows.append(words)
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.int64), torch.zeros(len(rows), width, dtype=torch.int64)
    for i, words in enumerate(rows):
        ids[i, width - len(words) :], mask[i, width - len(words) :] = torch.tensor(words), 1
    named = inspect.signature(type(model).forward).parameters
    prefix = model.config.model_type == "paligemma"  # its token types mark what follows the prompt
    marks = {name: torch.zeros_like(ids) if prefix else (ids == token).long() for name in MARKS if name in named}
    return {"input_ids": ids, "attention_mask": mask, **marks, **given}


def _words(count: int, generator: torch.Generator) -> list[int]:
    words: list[int] = torch.randint(WORDS.start, WORDS.stop, (count,), generator=generator).tolist()
    return words


@torch.no_grad()
def _pictures(model: Any, count: int, generator: torch.Generator) -> tuple[dict[str, Any], list[int]]:
    """Model arguments for `count` pictures, and the number of places of each in the prompt."""
    failures = []
    for given in _forms(model, count, generator):
        try:
            output = model.base_model.get_image_features(**given, return_dict=True)
            tokens = _tokens(output)
            sizes = [part.reshape(-1, part.shape[-1]).shape[0] for part in tokens]
        except Exception as error:  # the form of another class can fail anywhere in the tower
            failures.append(f"{type(error).__name__}: {error}".partition("\n")[0][:120])
            continue
        if len(sizes) != count:
            sizes = [sum(sizes) // count] * count
        return given, sizes
    raise ValueError(f"none of the known forms of pictures fits {type(model).__name__}: {'; '.join(failures)}.")


def _tokens(output: Any) -> Any:
    """Tokens of each picture, a tensor or a list, from the field where this class returns them."""
    if getattr(output, "pooler_output", None) is not None:
        return output.pooler_output
    if getattr(output, "last_hidden_state", None) is not None:
        return output.last_hidden_state
    return output.deepstack_features[0][1]  # layer, tokens


def _forms(model: Any, count: int, generator: torch.Generator) -> Iterator[dict[str, Any]]:
    """`count` pictures in every form that this model may take, according to the arguments of its encoder."""

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    vision = _vision(model.config)
    names = inspect.signature(model.base_model.get_image_features).parameters
    side = first_number(getattr(getattr(vision, "sam_config", vision), "image_size", None), 56)
    patch = first_number(getattr(vision, "patch_size", None), 14)
    values = 3 * patch * patch
    if "image_grid_thw" in names:
        yield from _packed(vision, patch, count, noise, merges="image_merge_sizes" in names)
        return
    if "high_res_pixel_values" in names:
        for high in (64, 1024):
            yield {"pixel_values": noise(count, 3, side, side), "high_res_pixel_values": noise(count, 3, high, high)}
    if "image_sizes" in names:  # a small view and two tiles, or one grid
        wide = torch.tensor([[side, 2 * side]] * count)
        yield {"pixel_values": noise(count, 3, 3, side, side), "image_sizes": wide}
        yield {"pixel_values": noise(count, 3, side, side), "image_sizes": torch.tensor([[side, side]] * count)}
    if "spatial_shapes" in names:
        shapes, mask = torch.tensor([[4, 4]] * count), torch.ones(count, 16, dtype=torch.int64)
        yield {"pixel_values": noise(count, 16, values), "spatial_shapes": shapes, "pixel_attention_mask": mask}
    if "target_sizes" in names:
        row = noise(1, 3, patch, 16 * count * patch)
        yield {"pixel_values": row, "target_sizes": torch.tensor([[4, 4]] * count)}
    if "image_position_ids" in names:
        pooled = first_number(getattr(vision, "pooling_kernel_size", None), 1)
        places = torch.cartesian_prod(torch.arange(2 * pooled), torch.arange(2 * pooled)).flip(1)  # x, y
        for edge in (patch, patch * pooled):
            pixels = noise(count, len(places), 3 * edge * edge).sigmoid()
            yield {"pixel_values": pixels, "image_position_ids": places.repeat(count, 1, 1)}
    if "qformer_input_ids" in names:
        ids = torch.tensor([_words(4, generator) for _ in range(count)])
        more = {"qformer_input_ids": ids, "qformer_attention_mask": torch.ones_like(ids)}
        yield {"pixel_values": noise(count, 3, side, side), **more}
    if "image_token_pooling" in names:
        fours = torch.arange(16 * count).reshape(-1, 4)
        grids, crops = torch.tensor([[2, 2, 0, 0]] * count), torch.ones(count, dtype=torch.int64)
        more = {"image_token_pooling": fours, "image_grids": grids, "image_num_crops": crops}
        yield {"pixel_values": noise(count, 16, values), **more}
    if "image_grid_hw" in names:
        yield {"pixel_values": noise(count * 16, values), "image_grid_hw": torch.tensor([[4, 4]] * count)}
    yield {"pixel_values": noise(count, 3, side, side)}
    yield {"pixel_values": noise(count, 16, values)}
    yield {"pixel_values": noise(4 * count, 2, patch, patch, 3)}  # four patches a picture, each a token
    yield {"pixel_values": noise(count, 1, 3, side, side)}
    tiles = torch.ones(count, 1, dtype=torch.bool)
    yield {"pixel_values": noise(count, 1, 3, side, side), "pixel_attention_mask": tiles}


def _packed(vision: Any, patch: int, count: int, noise: Any, *, merges: bool) -> Iterator[dict[str, Any]]:
    """Pictures of several sizes, all patches in one row."""
    grids = torch.tensor([GRIDS[i % len(GRIDS)] for i in range(count)])
    n, more = int(grids.prod(-1).sum()), {"image_merge_sizes": torch.full((count,), 2)} if merges else {}
    own = getattr(vision, "temporal_patch_size", None) or getattr(vision, "patch_temporal", None)
    for frames in dict.fromkeys((first_number(own, 2), 1, 2)):
        yield {"pixel_values": noise(n, 3 * frames * patch * patch), "image_grid_thw": grids, **more}
    yield {"pixel_values": noise(n, 3, patch, patch), "image_grid_thw": grids}
    for merged in (1, 2):
        yield {"pixel_values": noise(n, patch * merged, patch * merged, 3), "image_grid_thw": grids}


def _vision(config: Any) -> Any:
    parts = (getattr(config, name, None) for name in ("vision_config", "vq_config"))
    return next((part for part in parts if part is not None), config)
