"""`salience.profile`: cost of a pruned model, from its configuration alone, and timed if it has weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from salience.core.backend import resolve_device
from salience.core.record import ProfileRecord
from salience.lab.profile.counted_stages import CountedModel, vision_dominates_at
from salience.lab.profile.machine_load import Machine
from salience.lab.profile.meta_model import build, dtype_of, read_config
from salience.lab.profile.picture_arguments import DEFAULT_SIZE
from salience.lab.profile.processor_settings import PreparedPicture, prepared_by, prepared_in
from salience.lab.profile.profile_config import ProfileConfig, PromptShape
from salience.lab.profile.profile_rows import profile_row
from salience.lab.profile.roofline import Roofline, measure_roof
from salience.vlm.methods.in_llm_method import InLLMMethod


def profile(
    model: Any,
    *,
    keep: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.1),
    method: str | InLLMMethod | None = None,
    text_tokens: int = 64,
    batch: int = 1,
    images: int = 1,
    decode: int = 0,
    picture: tuple[int, int] = DEFAULT_SIZE,
    dtype: torch.dtype | None = None,
    roof: Roofline | None = None,
    processor: Any = None,
) -> ProfileRecord:
    """Cost and savings of pruning before the projector, or inside the language model, at each keep ratio.

    FLOPs are 2 a multiply-add, with attention as the full square, all layers, and the head for the last token. They are
    counted on shapes, so a 7B model takes seconds and needs no weights. The predicted time of an operator is that of
    its operations or its bytes at `roof`, whichever is longer, and at least its launch. A CPU's time is predicted in
    float32, in which its kernels are fast; bytes are those of `dtype`.

    Args:    model: a transformers vision-language model, whose stages are timed too, or a folder with a config.json, or
                    a hub id, of which only the configuration is read
             keep: ratios in (0, 1]
             method: "fastv", "pyramiddrop", "sparsevlm" or an `InLLMMethod`: keep counts the tokens after its last
                    stage, and reading attention is the language model's work; None: a scorer, before the projector
             text_tokens, images: of each row, at least 1   batch: rows, at least 1
             decode: tokens of the answer
             picture: width and height in pixels, for models whose tokens depend on them; others scale it to their own
             processor: its settings (sizes, crops, tiles, splitting) prepare the picture; None for the one in the
                    model's folder or of its hub id, or for the family's usual settings if there is none; `processor` in
                    the record's config names it
             dtype: None for the model's own   roof: a device's limits; None measures this machine's, in about a second
    Returns: `ProfileRecord`: `config` describes the model and the load, `rows` has a `ProfileRow` for each ratio
    Raises:  ValueError when an argument is out of its range, or there is no configuration of a vision-language model
    """
    prompt = PromptShape(text_tokens=text_tokens, batch=batch, images=images, decode=decode)
    config = ProfileConfig(keep=keep, method=method, prompt=prompt, picture=picture, dtype=dtype)
    return profile_model(model, config, roof=roof, processor=processor)


def profile_model(
    model: Any, config: ProfileConfig, *, roof: Roofline | None = None, processor: Any = None
) -> ProfileRecord:
    """As `profile`, with the settings in one object."""
    weights = model if isinstance(model, torch.nn.Module) else None
    settings: Any = model.config if weights is not None else read_config(model)
    prepared = _prepared(model, settings.model_type, config.picture, processor)
    dtype: torch.dtype = config.dtype or (model.dtype if weights is not None else dtype_of(settings))
    pictures = config.pictures(prepared.values)
    with _one_sentence(settings.model_type):
        on_meta = build(settings, dtype, None if weights is None else type(model))
        counted = CountedModel(on_meta, config.prompt, pictures)
        kept = [budget.count(counted.n) for budget in config.budgets]
        for count in kept:  # what can't be counted is refused before anything is timed
            counted.language(count, config.in_llm)
    device = model.device if weights is not None else resolve_device("auto")
    roof_dtype = torch.float32 if device.type == "cpu" and weights is None else dtype
    roof, load = (roof, _UNKNOWN_LOAD) if roof else _measured_roof(device, roof_dtype)
    measured: dict[int, dict[str, float]] = {}
    if weights is not None and device.type != "meta":
        from salience.lab.profile.measured_stages import measure_stages

        measured = measure_stages(model, counted, kept, config.in_llm)
    widen = roof_dtype.itemsize / dtype.itemsize
    rows = [
        profile_row(counted, budget, config.in_llm, roof, widen, measured.get(count, {}))
        for budget, count in zip(config.budgets, kept, strict=True)
    ]
    tokens = vision_dominates_at(counted)
    described = {
        "model": str(model) if weights is None else getattr(model, "name_or_path", "") or type(model).__name__,
        "model_type": settings.model_type,
        "dtype": str(dtype).removeprefix("torch."),
        "n_visual_tokens": counted.n,
        **vars(config.prompt),
        "picture": list(config.picture) if pictures.takes_any_size(settings) else None,
        "d_features": counted.width,
        "parameters": sum(parameter.numel() for parameter in counted.model.parameters()),
        "vision_dominates_at_tokens": tokens,
        "vision_dominates_at_keep": tokens / counted.n,
        "roof": vars(roof),
        "processor": prepared.name or None,
        "processor_note": prepared.note or None,
        **load,
        "method": config.in_llm.name if config.in_llm else None,
    }
    return ProfileRecord(config=described, rows=tuple(rows))


@contextmanager
def _one_sentence(model_type: str) -> Iterator[None]:
    """Turn errors of shapes that do not fit each other, or a picture, into one sentence.

    Raises:  ValueError in place of any other error
    """
    try:
        yield
    except (ValueError, ImportError):  # sentences already
        raise
    except Exception as error:  # raised by the first operator whose shapes do not fit
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].rstrip('.')}"
        raise ValueError(
            f"model: a picture can't be run through a {model_type!r} of this configuration ({reason})."
        ) from error


#: The record's facts about the machine where no limits were measured.
_UNKNOWN_LOAD: dict[str, Any] = {"load_average": None, "roof_spread": None, "busy_because": None}


def _measured_roof(device: torch.device, dtype: torch.dtype) -> tuple[Roofline, dict[str, Any]]:
    """This machine's limits, and whether it had other work while they were measured.

    Limits measured on a busy machine are too low, so that predicted times are too long.
    """
    machine = Machine()
    roof = measure_roof(device, dtype)
    seen = machine.observed()
    load = (seen["load_average_start"], seen["floor_spread"], seen["busy_because"])
    return roof, dict(zip(_UNKNOWN_LOAD, load, strict=True))


def _prepared(model: Any, model_type: str, size: tuple[int, int], processor: Any) -> PreparedPicture:
    """The picture as the model's own processor prepares it, if there is one."""
    if processor is not None:
        return prepared_by(processor, size)
    has_weights = isinstance(model, torch.nn.Module)
    source = getattr(model, "name_or_path", "") if has_weights else model
    if not source:
        return PreparedPicture(values={}, note="the model has no folder with a processor; pass processor=...")
    return prepared_in(source, model_type, size, local=has_weights)
