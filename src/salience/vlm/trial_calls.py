"""Trials before `prune` touches a model: the model's own generate on positions, and calls of a tiny copy."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from salience.core.transformers_names import cache_argument
from salience.core.types import TokenContext
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.handle import Pruned
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.pruning import Pruning
from salience.vlm.tiny_models.tiny_calls import tiny_batch, tiny_model
from salience.vlm.tiny_models.tiny_config import FIRST_WORD, PAD

_Reads = tuple[Literal["last", "next"], Literal["last", "text"]]  # `looks` and `rows` of an InLLMMethod
_STEPS = 3
_PICTURES = (1, 2)  # of each row
# float32 keeps 24 bits, and sums run over fewer terms in another order: 1e-5 of the largest logit at most was seen.
_NOTICED = 1e-3
_found: dict[tuple[Any, ...], str] = {}  # by class, config and what is tried: the reason, empty if there is none
_trying = threading.Lock()


def require_positions(pruning: Pruning) -> None:
    """Ask the model's own `prepare_inputs_for_generation` whether positions with gaps reach its forward.

    Raises:  ValueError when they don't, unless they are to be "compact", as generate will count them
    """
    model = pruning.adapter.model
    if not pruning.compact and _loses_positions(model):
        raise ValueError(
            f"positions can't be {pruning.positions!r} with {type(model).__name__}, whose generate counts anew and "
            "drops the positions it is given: use positions='compact'."
        )


def require_equal(pruning: Pruning) -> None:
    """Try pruned calls on a tiny random model of the same class and config, once for each.

    Forward and generate must run, and be those of the whole sequence with the dropped tokens masked. A class that can't
    be built tiny, or whose own calls fail without pruning, isn't tried. The model itself isn't touched.

    Raises:  ValueError with what went wrong
    """
    adapter, method, compact = pruning.adapter, pruning.in_llm, pruning.compact
    model = adapter.model
    reads = None if method is None else (method.looks, method.rows)
    try:
        key = (
            type(model),
            type(adapter),
            json.dumps(model.config.to_dict(), sort_keys=True, default=repr),
            reads,
            compact,
        )
    except TypeError:  # names of several types
        return
    with _trying:
        if key not in _found:
            with _apart():
                _found[key] = _reason(adapter, reads, compact=compact)
        reason = _found[key]
    if reason:
        what = "pruning" if method is None else f"method {method.name!r}"
        other = "" if method is None else ": use a method that prunes before the language model, such as 'uniform'"
        raise ValueError(f"{what} does not fit {type(model).__name__}: {reason}{other}.")


def _loses_positions(model: Any) -> bool:
    """Whether the model's first step or a later one is given other positions than generate has; False if unknown."""
    prepare = getattr(model, "prepare_inputs_for_generation", None)
    if prepare is None:
        return False
    ids = torch.full((1, 6), FIRST_WORD, dtype=torch.int64)
    gaps = torch.tensor([0, 1, 2, 7, 8, 9])
    several = hasattr(model.base_model, "get_rope_index")
    given = gaps.expand(4, 1, 6) if several else gaps[None]
    for new, first in ((6, True), (1, False)):
        options = {"attention_mask": torch.ones_like(ids), "use_cache": True, "is_first_iteration": first}
        if not first:
            options |= {"next_sequence_length": new, **_a_cache(model)}
        try:
            made = prepare(ids, position_ids=given.clone(), **options)
        except Exception:  # it wants what a real call would give it, so nothing is known
            return False
        left = made.get("position_ids")
        if not isinstance(left, Tensor) or left.shape[-1] != new:
            return True
        steps = given[..., -new:].reshape(-1, new)[-1]
        if not bool((left.reshape(-1, new)[-1] - steps == (left.reshape(-1, new)[-1] - steps)[0]).all()):
            return True  # a constant more is as good: PaliGemma begins at 1
    return False


def _a_cache(model: Any) -> dict[str, Any]:
    """A cache of five columns, under the name that generate passes it as."""
    from transformers import DynamicCache

    cache = DynamicCache()
    cache.update(torch.zeros(1, 1, 5, 1), torch.zeros(1, 1, 5, 1), 0)
    return {cache_argument(model.prepare_inputs_for_generation, model.forward): cache}


@contextmanager
def _apart() -> Iterator[None]:
    """Nothing of the caller's reaches the trial, and nothing of the trial stays: modes, devices, random numbers."""
    with (
        torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False), torch.no_grad(),
        torch.autocast("cpu", enabled=False),
    ):  # fmt: skip
        yield


def _reason(adapter: Adapter, reads: _Reads | None, *, compact: bool) -> str:
    """Why pruned calls of a tiny copy aren't right, a clause; empty if they are, or it can't be tried."""
    try:
        model = tiny_model(type(adapter.model), adapter.model.config)
        copy = adapter_for(model)
        given = tiny_batch(model, _PICTURES)
        full = model(**given).logits
    except Exception:  # whatever the class raises: it isn't built from a config alone, or takes other pictures
        return ""
    method: Method = _Half() if reads is None else _InLLMHalf.reading(*reads)
    pruning = Pruning(
        adapter=copy, method=method, budget=Budget(keep=0.5), positions="compact" if compact else "original"
    )
    try:
        with Pruned(pruning) as handle:
            short = model(**given).logits
            try:
                said = _generated(model, given)
            except Exception as error:
                handle.undo()
                if _runs(model, given):
                    raise error from None
                said = None
    except ValueError as error:  # mostly a sentence of ours
        return str(error).strip().partition("\n")[0].rstrip(".")
    except Exception as error:  # a pruned call of the model would raise the same
        return f"a pruned call of a tiny copy fails with {type(error).__name__} ({_line(error)})"
    if compact or reads is not None or not bool(full.isfinite().all()):
        return ""
    try:
        return _differs(model, copy, given, handle, full, short, said)
    except Exception:  # the whole sequence's own call fails with a mask or positions: there is nothing to hold against
        return ""


def _differs(
    model: Any, adapter: Adapter, given: dict[str, Any], handle: Pruned, full: Tensor, short: Tensor, said: Any
) -> str:
    """Compare pruned logits with those of the masked sequence; returns a clause on the difference, empty if none."""
    ids, mask = given["input_ids"], given["attention_mask"]
    stays = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(handle.trace.columns):
        stays[row, columns[columns >= 0]] = True
    hidden = mask.masked_fill(~stays, 0)
    if bool((hidden == mask).all()):  # each picture a token here, as larger ones need not be
        alone = len(handle.trace.images) > sum(_PICTURES)
        return "its tower gives every patch as a picture of its own, a token, which can't go" if alone else ""
    where = [adapter.position_ids(given, mask, generating=generating) for generating in (False, True)]
    masked = model(**{**given, "attention_mask": hidden, "position_ids": where[0]}).logits
    largest, last = float(masked.abs().max()), masked[:, -1]
    if float((full[:, -1] - last).abs().max()) < 10 * _NOTICED * largest:
        return ""  # nothing would be seen of a dropped token
    clause = "on a tiny copy the logits are not those of the whole sequence with the dropped tokens masked"
    for row, columns in enumerate(handle.trace.columns):
        real = (columns >= 0) & (mask[row, columns.clamp_min(0)] == 1)
        if not float((short[row][real] - masked[row, columns[real]]).abs().max()) <= _NOTICED * largest:
            return clause
    if said is None:
        return ""
    whole = _generated(model, {**given, "attention_mask": hidden, "position_ids": where[1]})
    apart = float((torch.stack(said.logits) - torch.stack(whole.logits)).abs().max())
    same = torch.equal(said.sequences, whole.sequences)
    return "" if same and apart <= _NOTICED * largest else f"{clause}, in generate"


def _generated(model: Any, given: dict[str, Any]) -> Any:
    return model.generate(
        **given, do_sample=False, max_new_tokens=_STEPS, min_new_tokens=_STEPS, output_logits=True, pad_token_id=PAD,
        return_dict_in_generate=True, suppress_tokens=list(range(FIRST_WORD)),
    )  # fmt: skip


def _runs(model: Any, given: dict[str, Any]) -> bool:
    """Whether the model generates without pruning."""
    try:
        _generated(model, given)
    except Exception:  # whatever it is, it isn't pruning's
        return False
    return True


def _line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0].rstrip(".") or "no message")[:160]


class _Half(Method):
    """Every second token, the first gone."""

    name: ClassVar[str] = "half"
    scored: ClassVar[bool] = False

    def score(self, ctx: TokenContext) -> Tensor:
        return torch.arange(ctx.features.shape[0]) % 2


@dataclass(frozen=True, kw_only=True, eq=False)
class _InLLMHalf(InLLMMethod):
    """Half of the tokens, some in front of every layer but the first."""

    name: ClassVar[str] = "half inside"

    @staticmethod
    def reading(looks: Literal["last", "next"], rows: Literal["last", "text"]) -> InLLMMethod:
        """A method whose stages read what another's do."""
        kind = type("_InLLMHalf", (_InLLMHalf,), {"looks": looks, "rows": rows})
        made: InLLMMethod = kind()
        return made

    def drops(self, depth: int) -> tuple[int, ...]:
        return tuple(range(1, depth)) or (1,)
