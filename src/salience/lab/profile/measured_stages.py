"""Wall-clock times of a model's stages, pruned by `salience.prune`, with temporary hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.cache_guard import reading
from salience.core.transformers_names import cache_of_output, passed_cache
from salience.lab.profile.counted_stages import CountedModel
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.meta_model import language_model, projectors
from salience.lab.profile.picture_arguments import PictureInputs
from salience.lab.profile.profile_config import PromptShape
from salience.lab.profile.profile_rows import STAGES
from salience.vlm.in_llm.layer_columns import LayerColumns
from salience.vlm.in_llm.layer_hooks import layer_masks
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.methods.base import Method
from salience.vlm.prune import prune
from salience.vlm.scorers.scorer import Scorer, untrained_scorer

_TOWERS = ("vision_tower", "visual", "vision_model")


def measure_stages(
    model: Any, counted: CountedModel, counts: Sequence[int], method: Method | None = None, repeats: int = 7
) -> dict[int, dict[str, float]]:
    """Median milliseconds of each stage by tokens kept of a picture, the counts interleaved.

    Stages: vision, scorer, projector, llm (prefill and head), rest (ranking, gathering, placing), decode (one token).

    Args:    counted: the same model on `meta`   method: the pruning method; None for a scorer with random weights
    Raises:  ValueError when the model is of no family that can be pruned
    """
    prompt, n = counted.prompt, counted.n
    inputs = _inputs(model, prompt, counted.pictures, n)
    scorer = untrained_scorer(counted.width)

    def of(kept: int) -> Callable[[Stopwatch], None]:
        def run(watch: Stopwatch) -> None:
            with prune(model, method or scorer, keep=kept / n) as pruned:
                network = getattr(pruned.method, "scorer", None)
                with _laps(watch, _modules(model, network)):
                    watch.start()
                    out = model(**inputs)
                    watch.lap("rest")
            _decode(model, prompt, out, watch)
            for stage in STAGES:
                watch.milliseconds.setdefault(stage, 0.0)

        return run

    with torch.inference_mode():
        return measure({kept: of(kept) for kept in sorted(set(counts))}, repeats=repeats, device=model.device)


def _inputs(model: Any, prompt: PromptShape, pictures: PictureInputs, n: int) -> dict[str, Any]:
    """Arguments of `forward`: half of the text, the pictures, the rest of the text."""
    config, device = model.config, model.device
    placeholder = int(config.image_token_id)
    word = 0 if placeholder != 0 else 1
    before = prompt.text_tokens // 2
    row = [word] * before + [placeholder] * (n * prompt.images) + [word] * (prompt.text_tokens - before)
    ids = torch.tensor([row] * prompt.batch, device=device)
    taken = inspect.signature(model.forward).parameters
    types = {name: (ids == placeholder).long() for name in ("mm_token_type_ids", "token_type_ids") if name in taken}
    values = pictures.arguments(config, device, model.dtype, taken)
    last = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **types, **values, **last, "use_cache": True}


def _modules(model: Any, scorer: Scorer | None) -> dict[str, list[nn.Module]]:
    tower = next(found for name in _TOWERS if (found := getattr(model.base_model, name, None)) is not None)
    return {
        "vision": [tower],
        "projector": projectors(model),
        "llm": [language_model(model), model.get_output_embeddings()],
        "scorer": [] if scorer is None else [scorer],
    }


@contextmanager
def _laps(watch: Stopwatch, modules: Mapping[str, Iterable[nn.Module]]) -> Iterator[None]:
    """Assign time to the innermost running module, and to "rest" outside all of them."""
    inside = ["rest"]
    handles = []

    def enter(stage: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            watch.lap(inside[-1])
            inside.append(stage)

        return hook

    def leave(*_: Any) -> None:
        watch.lap(inside.pop())

    try:
        for stage, members in modules.items():
            for module in members:
                handles.append(module.register_forward_pre_hook(enter(stage)))
                handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _decode(model: Any, prompt: PromptShape, out: Any, watch: Stopwatch) -> None:
    """Decode `prompt.decode` tokens on the cache; the time does not depend on which they are."""
    if not prompt.decode:
        return
    cache, embed = cache_of_output(out), model.get_input_embeddings()
    named = passed_cache(language_model(model), cache)
    ids: Tensor = torch.zeros(prompt.batch, 1, dtype=torch.int64, device=model.device)
    watch.start()
    for _ in range(prompt.decode):
        mask = ids.new_ones(prompt.batch, cache.get_seq_length() + 1)
        with reading(cache), _later(language_model(model), cache):
            step = language_model(model)(inputs_embeds=embed(ids), attention_mask=mask, use_cache=True, **named)
        model.get_output_embeddings()(step.last_hidden_state[:, -1])
    watch.lap("decode")
    watch.milliseconds["decode"] /= prompt.decode


def _later(language: Any, cache: Any) -> AbstractContextManager[None]:
    """Masks for layers that hold fewer tokens than the first."""
    columns = LayerColumns.on(cache)
    return nullcontext() if columns is None else layer_masks(LLMLayers(language), cache, columns, None)
