"""FastV: tokens that the prompt's last token ignores in an early layer are dropped from all later layers."""

from __future__ import annotations

from dataclasses import dataclass

from salience.vlm.methods.in_llm_method import InLLMMethod


@dataclass(frozen=True, kw_only=True, eq=False)
class FastV(InLLMMethod):
    """After `layer` layers keep the tokens that the prompt's last token paid most attention in the last of them, mean
    over heads. See `InLLMMethod` for what `keep` means; the paper's R is 1 - keep, its K is `layer`.

    Source: FastV, arXiv:2403.06764, section 4.1 and algorithm 1.  Deviation: none known in what is kept; only the last
    token's row of attention is computed, beside whatever kernel the model uses; the keys and values of the dropped
    tokens stay in the caches of the first layers, as in the paper's own code with a cache; every picture has its own
    budget.
    """

    name = "fastv"
    layer: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.layer, int) or isinstance(self.layer, bool) or self.layer < 1:
            raise ValueError(f"layer must be a whole number of at least 1, not {self.layer!r}.")

    def drops(self, depth: int) -> tuple[int, ...]:
        if self.layer >= depth:
            raise ValueError(
                f"method 'fastv' drops tokens after {self.layer} layers and the language model has {depth}: use "
                "FastV(layer=...) with fewer, or a method that prunes before it."
            )
        return (self.layer,)
