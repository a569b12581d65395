"""What a model makes of an answer that it is made to give, through `generate`, with whatever prunes or caches there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def forced_logits(model: Any, inputs: Mapping[str, Any], ids: Tensor) -> Tensor:
    """(rows, t, V) float32: the logits before each of the first t tokens of `ids`, the ones before it given.

    t is less than A only where every row has ended.

    Args:    inputs: the model's arguments for the prompts   ids: (rows, A) int64, what each row is made to say
    """
    out = model.generate(
        **inputs, max_new_tokens=ids.shape[1], do_sample=False, num_beams=1, logits_processor=[_Forced(ids)],
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    return torch.stack(out.logits, dim=1).float()  # before the processor


class _Forced:
    """A logits processor that leaves each row one token a step."""

    def __init__(self, ids: Tensor) -> None:
        self.ids, self.step = ids, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        wanted = self.ids[:, self.step : self.step + 1].to(scores.device)
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter(1, wanted, 0.0)
