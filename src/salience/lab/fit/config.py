"""Configuration and objectives of a scorer's training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from salience.lab.config_checks import require_positive, require_whole
from salience.lab.fit.attention_source import AttentionSource


def attention_kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax(logits)) in nats, mean over pictures.

    Args:    logits: (B, n) of the scorer   target: (B, n), adding up to 1 in each picture
    """
    # 0 log 0 is 0, so the logarithm of an empty share must only be finite.
    own = (target * target.clamp_min(1e-30).log()).sum(-1)
    return (own - (target * logits.log_softmax(-1)).sum(-1)).mean()


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"attention": attention_kl}


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Configuration of a scorer's training. The defaults are those of `salience fit`.

    pictures, validation: numbers of training and validation pictures   questions: at most so many a picture
    source: attention that is the target; None to choose it on the validation pictures at the keep ratios `keeps`
    hidden: width of the scorer   steps, batch (pictures, or views of pictures), rate, decay: of AdamW, whose learning
    rate warms up and then follows a cosine
    shuffled: permute each picture's targets among its tokens, a control that must end up no better than random
    save_every: steps between checkpoints, without influence on the result
    """

    task: str = "scenes"
    objective: str = "attention"
    pictures: int = 300
    validation: int = 32
    questions: int = 16
    source: AttentionSource | None = None
    keeps: tuple[float, ...] = (0.05,)
    hidden: int = 64
    steps: int = 800
    batch: int = 16
    rate: float = 1e-2
    decay: float = 1e-2
    shuffled: bool = False
    seed: int = 0
    save_every: int = field(default=100, compare=False)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}.")
        require_whole(self, ("pictures", "validation", "questions", "hidden", "steps", "batch", "save_every"), 1)
        require_positive(self, ("rate",))

    @staticmethod
    def quick(*, seed: int = 0) -> FitConfig:
        """A few pictures and steps: enough to see that it works."""
        return FitConfig(pictures=24, validation=8, questions=8, steps=60, keeps=(0.1,), seed=seed)

    def describe(self) -> dict[str, Any]:
        """Return as JSON what the result depends on."""
        # A scorer's config.json has the source under "look", the key of all scorers that were saved so far.
        return {"look" if key == "source" else key: value for key, value in asdict(self).items() if key != "save_every"}
