"""The wall clock of a real model's stages, pruned as `salience.prune` does it, with hooks that go again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.cache_guard import reading
from salience.core.transformers_names import cache_of_output, passed_cache
from salience.lab.profile.counted_stages import Prompt
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.picture_arguments import Pictures
from salience.lab.profile.skeleton import language_model, projectors
from salience.vlm.in_llm.layer_columns import LayerColumns
from salience.vlm.in_llm.layer_hooks import layer_masks
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.methods.base import Method
from salience.vlm.prune import prune
from salience.vlm.scorers.scorer import Scorer, untrained_scorer

_TOWERS = ("vision_tower", "visual", "vision_model")
STAGES = ("vision", "scorer", "projector", "llm", "rest")


def measure_stages(
    model: Any, prompt: Prompt, pictures: Pictures, counts: Sequence[int], n: int, width: int, repeats: int = 7,
    method: Method | None = None,
) -> dict[int, dict[str, float]]:  # fmt: skip
    """Median milliseconds of each stage by tokens kept of a picture, the counts taking turns.

    Stages: vision, scorer, projector, llm (prefill and head), rest (ranking, gathering, placing), decode (of a token).

    method: what prunes; None for a scorer with random weights.

    Raises:  ValueError when the model is of no family that can be pruned
    """
    inputs = _inputs(model, prompt, pictures, n)
    scorer = untrained_scorer(width)

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
        return measure({kept: of(kept) for kept in counts}, repeats=repeats, device=model.device)


def _inputs(model: Any, prompt: Prompt, pictures: Pictures, n: int) -> dict[str, Any]:
    """A call of `forward`: half of the text, the pictures, the rest of the text."""
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
    """Time goes to the innermost module that runs, and to "rest" outside all of them."""
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


def _decode(model: Any, prompt: Prompt, out: Any, watch: Stopwatch) -> None:
    """`prompt.decode` further tokens on the cache; which they are makes no difference to the time."""
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
    """Masks of their own for layers that hold fewer tokens than the first."""
    columns = LayerColumns.on(cache)
    return nullcontext() if columns is None else layer_masks(LLMLayers(language), cache, columns, None)
