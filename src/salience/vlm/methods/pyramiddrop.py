"""PyramidDrop: the deeper the layer, the fewer tokens."""

from __future__ import annotations

from dataclasses import dataclass

from salience.vlm.methods.in_llm_method import StagedMethod


@dataclass(frozen=True, kw_only=True, eq=False)
class PyramidDrop(StagedMethod):
    """At each of `depths`, fractions of the layers, keep the same share of the remaining tokens: those that the
    prompt's last token would pay most attention in the next layer, mean over heads.

    keep is the share that remains after the last stage, so the paper's lambda is keep ** (1 / stages): .5 at three
    stages is keep = .125. `InLLMMethod` says how to compare this with other methods.

    Source: PyramidDrop, arXiv:2410.17247, section 3.2, equations 1 to 3.  Deviation: original positions (the paper's
    code closes the gaps); every picture has its own budget (the paper's code ranks the tiles of one together); stages
    that fall on one layer of a shallow model become one.
    """

    name = "pyramiddrop"
    scored = False
    looks = "next"
