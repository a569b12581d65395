"""Teacher-forced logits, through `generate`, with whatever prunes or caches there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def forced_logits(model: Any, inputs: Mapping[str, Any], ids: Tensor) -> Tensor:
    """(rows, t, V) float32: the logits before each of the first t tokens of `ids`, the ones before it given.

    t is less than A only where every row has ended.

    Args:    inputs: the model's arguments for the prompts   ids: (rows, A) int64, the tokens that each row must say
    """
    out = model.generate(
        **inputs, max_new_tokens=ids.shape[1], do_sample=False, num_beams=1, logits_processor=[_Forced(ids)],
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    return torch.stack(out.logits, dim=1).float()  # before the processor


def loglikelihood(model: Any, tokenizer: Any, inputs: Mapping[str, Any], text: str) -> tuple[Tensor, Tensor]:
    """log P(text | prompt) for each row of `inputs`, and whether greedy decoding would say the text: (rows,) each.

    Raises:  ValueError for a text without tokens
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError(f"text must have at least one token, unlike {text!r}.")
    rows = len(inputs["input_ids"])
    wanted = torch.tensor(ids, device=inputs["input_ids"].device).expand(rows, -1)
    logits = forced_logits(model, inputs, wanted)  # (rows, tokens, V)
    wanted = wanted[:, : logits.shape[1]]
    each = logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
    return each.sum(-1).cpu(), (logits.argmax(-1) == wanted).all(-1).cpu()


class _Forced:
    """A logits processor that leaves each row one token a step."""

    def __init__(self, ids: Tensor) -> None:
        self.ids, self.step = ids, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        wanted = self.ids[:, self.step : self.step + 1].to(scores.device)
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter(1, wanted, 0.0)
