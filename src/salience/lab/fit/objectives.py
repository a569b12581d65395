"""What a scorer is trained for: one function an objective, in one static table."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]


def attention_kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax(logits)) in nats, mean over pictures.

    Args: logits (B, n) of the scorer; target (B, n), each picture's shares adding up to 1
    """
    # 0 log 0 is 0: where the target has nothing, its logarithm is not looked at.
    own = (target * target.clamp_min(1e-30).log()).sum(-1)
    return (own - (target * logits.log_softmax(-1)).sum(-1)).mean()


OBJECTIVES: dict[str, Objective] = {"attention": attention_kl}
