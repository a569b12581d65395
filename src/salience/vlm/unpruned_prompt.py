"""The unpruned prompt for streamers, logits processors and stopping criteria, while `generate` runs a shorter one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Attributes of transformers' own criteria and processors that hold a length counted from the start of the prompt.
_LENGTHS = ("max_length", "min_length", "prompt_length_to_skip", "begin_index", "regulation_start")


class UnprunedPrompt:
    """The caller's prompt (B, T), and the one that runs: `length` tokens L, and its ids `running` (B, L) if known."""

    def __init__(self, prompt: Tensor, length: int, running: Tensor | None = None) -> None:
        self.prompt, self.length, self._running = prompt, length, running
        self.dropped = prompt.shape[1] - length

    def begins(self, ids: Tensor) -> bool:
        """Whether these are ids of sequences that continue the prompt that runs."""
        rows, length = len(self.prompt), self.length
        if ids.dim() != 2 or ids.is_floating_point() or ids.shape[1] < length or not len(ids) or len(ids) % rows:
            return False
        if self._running is None:
            return True
        running = self._running.repeat_interleave(len(ids) // rows, 0).to(ids.device)
        return torch.equal(ids[:, :length].to(running.dtype), running)

    def require_room(self, given: dict[str, Any], model: Any) -> None:
        """Raise a ValueError unless `max_length`, if it is in force, is more than the length of the caller's prompt."""
        if effective("max_new_tokens", given, model) is not None:
            return
        longest, length = effective("max_length", given, model), self.prompt.shape[1]
        if longest is not None and longest <= length:
            raise ValueError(
                f"max_length must be more than the {length} tokens of the unpruned prompt, not {longest}: raise it, or "
                "set max_new_tokens."
            )

    def restore(self, ids: Tensor) -> Tensor:
        """(B * m, L + new) -> (B * m, T + new); m consecutive rows belong to one prompt (beams, sequences)."""
        if ids.shape[0] % self.prompt.shape[0]:
            raise ValueError(f"{ids.shape[0]} sequences do not belong to {self.prompt.shape[0]} prompts.")
        prompt = self.prompt.repeat_interleave(ids.shape[0] // self.prompt.shape[0], 0)
        return torch.cat([prompt.to(ids.device), ids[:, self.length :]], dim=1)

    def arguments(self, given: dict[str, Any], model: Any) -> dict[str, Any]:
        """`generate`'s arguments; those that count from the prompt's start or read its ids are adjusted."""
        if self.dropped == 0:
            return given
        given = self._lengths(given, model)
        if given.get("streamer") is not None:
            given["streamer"] = _Streamer(given["streamer"], self)
        for name, shown in (("logits_processor", _Processor), ("stopping_criteria", _Criterion)):
            if given.get(name):
                given[name] = type(given[name])([self._adjusted(item, shown) for item in given[name]])
        allowed: Callable[[int, Tensor], Any] | None = given.get("prefix_allowed_tokens_fn")
        if allowed is not None:
            given["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(
                row, torch.cat([self.prompt[row].to(ids.device), ids[self.length :]])
            )
        return given

    def _lengths(self, given: dict[str, Any], model: Any) -> dict[str, Any]:
        """`max_length` and `min_length` less the dropped tokens, in the argument or the config that they come from."""
        config = given.get("generation_config")
        if config is not None:
            given["generation_config"] = config = copy.deepcopy(config)
        for name in ("max_length", "min_length"):
            value = effective(name, given, model)
            if not value:
                continue
            if given.get(name) is not None or config is None:
                given[name] = max(0, value - self.dropped)
            else:
                setattr(config, name, max(0, value - self.dropped))
        return given

    def _adjusted(self, item: Any, shown: Callable[[Any, UnprunedPrompt], Any]) -> Any:
        """A criterion or processor: transformers' own get shorter lengths, others are `shown` the whole prompt."""
        if not type(item).__module__.startswith("transformers."):
            return shown(item, self)
        item = copy.copy(item)
        for name in _LENGTHS:
            if isinstance(value := getattr(item, name, None), int):
                setattr(item, name, max(0, value - self.dropped))
        return item


def effective(name: str, given: dict[str, Any], model: Any) -> Any:
    """A generation setting in force: the argument, else that of its config, else that of the model."""
    for source in (given.get("generation_config"), model.generation_config):
        if given.get(name) is not None:
            return given[name]
        if getattr(source, name, None) is not None:
            return getattr(source, name)
    return None


class _Streamer:
    """A streamer that gets the whole prompt in its first `put`."""

    def __init__(self, inner: Any, whole: UnprunedPrompt) -> None:
        self._inner, self._whole, self._started = inner, whole, False

    def put(self, value: Tensor) -> None:
        self._inner.put(value if self._started else self._whole.restore(value))
        self._started = True

    def end(self) -> None:
        self._inner.end()


class _Processor:
    """A logits processor of the caller, called with the ids of the unpruned sequence."""

    def __init__(self, inner: Any, whole: UnprunedPrompt) -> None:
        self._inner, self._whole = inner, whole

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        return self._inner(self._whole.restore(input_ids), scores)


class _Criterion(_Processor):
    """The same for a stopping criterion, which takes options; of a processor transformers would ask for them."""

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Any:
        return self._inner(self._whole.restore(input_ids), scores, **options)
