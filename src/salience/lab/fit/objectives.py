"""Training objectives of scorers, one function each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]


def attention_kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax(logits)) in nats, mean over pictures.

    Args:    logits: (B, n) of the scorer   target: (B, n), adding up to 1 in each picture
    """
    # 0 log 0 is 0, so the logarithm of an empty share must only be finite.
    own = (target * target.clamp_min(1e-30).log()).sum(-1)
    return (own - (target * logits.log_softmax(-1)).sum(-1)).mean()


OBJECTIVES: dict[str, Objective] = {"attention": attention_kl}
