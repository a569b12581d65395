"""Trial calls of a tiny copy, before `prune` changes a model."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from salience.core.transformers_names import cache_argument
from salience.core.types import TokenContext
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.handle import Pruned
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.pruned_inputs import Positions
from salience.vlm.pruning import Pruning
from salience.vlm.tiny_models.tiny_calls import tiny_batch, tiny_model
from salience.vlm.tiny_models.tiny_config import FIRST_WORD, PAD
from salience.vlm.trace import Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Reads = tuple[Literal["last", "next"], Literal["last", "text"]]  # `looks` and `rows` of an InLLMMethod
_STEPS = 3
_PICTURES = (1, 2)  # of each row
# Relative to the largest logit. Rounding gave at most 1e-5: float32 has 24 bits, and sums run in another order.
_NOTICED = 1e-3
_found: dict[tuple[object, ...], str] = {}  # class, config and kind of pruning -> `_reason`
_trying = threading.Lock()


def require_positions(pruning: Pruning) -> None:
    """Check with the model's own `prepare_inputs_for_generation` that positions with gaps reach its forward.

    Raises:  ValueError when they don't; "compact" positions are those that generate counts itself, and always pass
    """
    model = pruning.adapter.model
    if not pruning.compact and _loses_positions(model):
        raise ValueError(
            f"positions can't be {pruning.positions!r} with {type(model).__name__}, whose generate counts anew and "
            "drops the positions it is given: use positions='compact'."
        )


def require_equal(pruning: Pruning) -> None:
    """Try pruned calls on a tiny random model of the same class and config, once for each.

    Forward and generate must run, and equal those of the whole sequence with the dropped tokens masked. A class is not
    tried if it can't be built tiny, or if its own calls fail without pruning. The model itself is not touched.

    Raises:  ValueError with the reason
    """
    adapter, method, compact = pruning.adapter, pruning.in_llm, pruning.compact
    model = adapter.model
    reads = None if method is None else (method.looks, method.rows)
    try:
        config = json.dumps(model.config.to_dict(), sort_keys=True, default=repr)
    except TypeError:  # names of several types
        return
    key = (type(model), type(adapter), config, reads, compact)
    with _trying:
        if key not in _found:
            # the caller's modes, device and random numbers stay out of the trial, and the trial's out of the caller's
            with (
                torch.random.fork_rng(devices=[]),
                torch.device("cpu"),
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast("cpu", enabled=False),
            ):
                _found[key] = _reason(adapter, reads, compact=compact)
        reason = _found[key]
    if reason:
        what = "pruning" if method is None else f"method {method.name!r}"
        other = "" if method is None else ": use a method that prunes before the language model, such as 'uniform'"
        raise ValueError(f"{what} does not fit {type(model).__name__}: {reason}{other}.")


def _loses_positions(model: PreTrainedModel) -> bool:
    """Whether generate changes the positions of its first step or a later one; False if unknown."""
    from transformers import DynamicCache

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
            cache = DynamicCache()
            cache.update(torch.zeros(1, 1, 5, 1), torch.zeros(1, 1, 5, 1), 0)
            options |= {"next_sequence_length": new, cache_argument(prepare, model.forward): cache}
        try:
            made = prepare(ids, position_ids=given.clone(), **options)
        except Exception:  # it needs more arguments of a real call, so nothing is known
            return False
        left = made.get("position_ids")
        if not isinstance(left, Tensor) or left.shape[-1] != new:
            return True
        moved = left.reshape(-1, new)[-1] - given[..., -new:].reshape(-1, new)[-1]
        if bool((moved != moved[0]).any()):
            return True  # adding a constant is no change: PaliGemma counts from 1
    return False


@dataclass(frozen=True, eq=False)
class _TinyCall:
    """A tiny model and the arguments of a call."""

    model: PreTrainedModel
    args: dict[str, Any]

    def logits(self, **changed: Tensor) -> Any:
        """(B, T, vocabulary)."""
        return self.model(**{**self.args, **changed}).logits

    def generated(self, **changed: Tensor) -> Any:
        """A greedy answer of `_STEPS` tokens."""
        return self.model.generate(
            **{**self.args, **changed},
            do_sample=False,
            max_new_tokens=_STEPS,
            min_new_tokens=_STEPS,
            output_logits=True,
            pad_token_id=PAD,
            return_dict_in_generate=True,
            suppress_tokens=list(range(FIRST_WORD)),
        )

    def generates(self) -> bool:
        """Whether the model's own generate runs."""
        try:
            self.generated()
        except Exception:  # of any kind: it is not caused by pruning
            return False
        return True


def _reason(adapter: Adapter, reads: _Reads | None, *, compact: bool) -> str:
    """A clause on what is wrong with pruned calls of a tiny copy; empty if nothing is, or it can't be tried."""
    try:
        model = tiny_model(type(adapter.model), adapter.model.config)
        copy, call = adapter_for(model), _TinyCall(model, tiny_batch(model, _PICTURES))
        full = call.logits()
    except Exception:  # the class can't be built from a config alone, or takes other pictures
        return ""
    method: Method = _Half() if reads is None else _InLLMHalf(*reads)
    positions: Positions = "compact" if compact else "original"
    pruning = Pruning(adapter=copy, method=method, budget=Budget(keep=0.5), positions=positions)
    try:
        with Pruned(pruning) as handle:
            short = call.logits()
            try:
                answer = call.generated()
            except Exception as error:
                handle.undo()
                if call.generates():
                    raise error from None
                answer = None
    except ValueError as error:  # mostly a sentence of ours
        return _first_line(error)
    except Exception as error:  # a pruned call of the model itself would raise the same
        return f"a pruned call of a tiny copy fails with {type(error).__name__} ({_first_line(error)[:160]})"
    if compact or reads is not None or not bool(full.isfinite().all()):
        return ""
    try:
        return _difference(call, copy, handle.trace, full, short, answer)
    except Exception:  # the model's own call fails with a mask or positions: there is nothing to compare with
        return ""


def _difference(call: _TinyCall, adapter: Adapter, trace: Trace, full: Tensor, short: Tensor, answer: Any) -> str:
    """Compare pruned logits with those of the masked sequence; returns a clause on the difference, empty if none."""
    ids, mask = call.args["input_ids"], call.args["attention_mask"]
    stays = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(trace.columns):
        stays[row, columns[columns >= 0]] = True
    left = mask.masked_fill(~stays, 0)
    if bool((left == mask).all()):  # each view is one token here; views of larger pictures may have more
        alone = len(trace.images) > sum(_PICTURES)
        return "its tower gives every patch as a picture of its own, a token, which can't go" if alone else ""
    in_forward, in_generate = (
        adapter.position_ids(call.args, mask, generating=generating) for generating in (False, True)
    )
    masked = call.logits(attention_mask=left, position_ids=in_forward)
    largest, last = float(masked.abs().max()), masked[:, -1]
    if float((full[:, -1] - last).abs().max()) < 10 * _NOTICED * largest:
        return ""  # the logits barely depend on the dropped tokens
    clause = "on a tiny copy the logits are not those of the whole sequence with the dropped tokens masked"
    for row, columns in enumerate(trace.columns):
        real = (columns >= 0) & (mask[row, columns.clamp_min(0)] == 1)
        if not float((short[row][real] - masked[row, columns[real]]).abs().max()) <= _NOTICED * largest:
            return clause
    if answer is None:
        return ""
    whole = call.generated(attention_mask=left, position_ids=in_generate)
    apart = float((torch.stack(answer.logits) - torch.stack(whole.logits)).abs().max())
    same = torch.equal(answer.sequences, whole.sequences)
    return "" if same and apart <= _NOTICED * largest else f"{clause}, in generate"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or "no message"


class _Half(Method):
    """Keep every second token, without the first."""

    name = "half"
    scored = False

    def score(self, ctx: TokenContext) -> Tensor:
        return torch.arange(ctx.features.shape[0]) % 2


class _InLLMHalf(InLLMMethod):
    """Keep half of the tokens, dropping some before every layer but the first, with `looks` and `rows` of another."""

    name = "half in the language model"

    def __init__(self, looks: Literal["last", "next"], rows: Literal["last", "text"]) -> None:
        self.looks, self.rows = looks, rows

    def drops(self, depth: int) -> tuple[int, ...]:
        return tuple(range(1, depth)) or (1,)
