"""Writes docs/families.md, families by methods, from a run of the tests: `python recipes/families_table.py`."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "apply" / "test_methods_by_family.py"
EVERY = ROOT / "tests" / "apply" / "test_every_class.py"

# How the tests call a family -> how people do.
NAMES = {
    "llava": "LLaVA-1.5", "llava_siglip": "LLaVA with SigLIP", "vila": "VILA-like", "llava_next": "LLaVA-NeXT",
    "llava_onevision": "LLaVA-OneVision", "qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL-MoE", "qwen3_5": "Qwen3.5", "qwen3_5_moe": "Qwen3.5-MoE", "glm4v": "GLM-4.1V",
    "glm46v": "GLM-4.6V", "glm4v_moe": "GLM-4.5V (MoE)",
    "smolvlm": "SmolVLM", "idefics3": "Idefics3", "internvl": "InternVL", "paligemma": "PaliGemma", "gemma3": "Gemma3",
    "llama4": "Llama4", "ovis2": "Ovis2", "lfm2_vl": "LFM2-VL (fallback)", "kimi_k25": "Kimi K2.5 (fallback)",
    "minicpmv4_6": "MiniCPM-V 4.6 (fallback)", "minicpmv4_7": "MiniCPM-V 4.7 (fallback)",
    "aya_vision": "Aya Vision (fallback)", "mistral3": "Mistral3 (fallback)",
}  # fmt: skip

HEAD = """# Families and methods

Which method prunes which model, as the tests found: every family is a tiny random model of its own transformers class,
with rows of one and two pictures, padded on the left. *works*: keep = 1 gives the same logits bit for bit, and keep =
0.5 equals the whole sequence with the dropped tokens masked, and merged ones in their places, to 1e-5 in float32.
*substitute*: the same, and something stands in for what the model or the picture lacks; the log, `explain()` and the
trace say what, in the words below. *refused*: `prune` raises a ValueError.
`fastv`, `pyramiddrop` and `sparsevlm` drop tokens inside the language model (`fastv` after the first of these models'
two layers): there the later layers alone are held against the masked sequence. `temporal` is for videos, which
`tests/vlm/test_video.py` holds against the masked sequence; here it gets pictures.

Layers that count distance in columns see the whole prompt's under original positions: windows and chunks of attention
(Gemma3, Cohere2 in Aya Vision, Mistral) are measured in it, and convolutions and linear attention (LFM2-VL, Qwen3.5)
run over its whole length with zeros where a token is gone, so that these parts cost what they did. Under
`positions="compact"` both work on what is left alone, as if the dropped tokens had never been there. Other attention
kernels than sdpa and eager are refused once a prompt is longer than a window, and layers that choose among tokens by
their place (sparse and compressed attention) are refused by `prune`. Positions of MiniCPM-V 4.7, PaddleOCR-VL and
Cosmos3-Edge can't be "compact". GLM's videos are refused, whose tokens share the pictures' placeholder. Under beam
search transformers' own `generate` mixes up a prompt's pictures with GLM and fails with Llama4, where pruned calls are
right.

Unmeasured: FlashAttention (no GPU was at hand); weights of 8 and 4 bits where bitsandbytes isn't installed (its test in
`tests/vlm/test_placed.py` runs where it is); the own processors of InternVL, LLaVA-OneVision and Qwen's models, which
need torchvision, so that videos and their pictures were given as tensors. VILA-like is LLaVA's class with a SigLIP
tower and a down-sampling projector; `salience.vlm.families.vila` lists what differs from the original.

Written by `python recipes/families_table.py` from a run of `tests/vlm/test_methods_by_family.py` with transformers
{version}; not to be edited.

"""


EVERY_HEAD = """
## Every class of AutoModelForImageTextToText

Each class that transformers {version} maps, as a tiny random model of its own config: rows of one and two pictures,
padded on the left. *works*: forward and three steps of generate equal the whole sequence with the dropped tokens masked
(whole forwards without a cache) to 1e-4 of the largest logit, at keep = 1 and 0.5, in windows narrower than the prompt
too. *Before*: `uniform`, `random`, `divprune` and a scorer; *attention*: `cls-attention`, on [CLS] or received
attention; *inside*: `fastv`, `pyramiddrop` and `sparsevlm`. *refused*: `prune` raises a ValueError, in the words below.
`prune` tries the same on a tiny copy of your model's class and config before it accepts it. Where generate drops the
positions it is given, `positions="compact"` works and equals the sequence with the gaps closed.

Written from a run of `tests/vlm/test_every_class.py`.

"""


class Outcomes:
    """Collects what each test notes of itself."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], str] = {}
        self.every: dict[tuple[str, str], str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        noted = dict(report.user_properties)
        if "every class" in noted and report.when in ("call", "setup"):
            for name, (kind, part, outcome) in report.user_properties:
                if name == "every class":
                    self.every[kind, part] = "fails" if report.failed else outcome
        if report.when == "call" and "method" in noted:
            outcome = noted["outcome"] if report.passed else "fails"  # noted anew as it is found: the last counts
            self.found[noted["family"], noted["method"]] = outcome


def table(found: dict[tuple[str, str], str]) -> str:
    """The outcomes as Markdown; what stands in for what is lettered below, reasons of refusals are numbered."""
    families = sorted({family for family, _ in found}, key=list(NAMES).index)
    methods = sorted({method for _, method in found})
    reasons: list[str] = []
    substitutes: list[str] = []
    lines = ["| | " + " | ".join(f"`{name}`" for name in methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for family in families:
        cells = []
        for method in methods:
            outcome = re.sub(r"^method '[^']*'", "method '...'", found[family, method])
            if outcome.startswith("substitute: "):
                outcome = f"substitute ({_letter(substitutes, outcome.partition(': ')[2])})"
            elif outcome not in ("works", "fails"):
                if outcome not in reasons:
                    reasons.append(outcome)
                outcome = f"refused ({reasons.index(outcome) + 1})"
            cells.append(outcome)
        lines.append(f"| {NAMES[family]} | " + " | ".join(cells) + " |")
    if substitutes:
        said = [f"- {_letter(substitutes, one)}: {one}." for one in substitutes]
        lines += ["", "Substitutes, in the words of the trace:", "", *said]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    if notes:
        lines += ["", "Refused, in the words a caller reads:", "", *notes]
    return "\n".join([*lines, ""])


def every_class(found: dict[tuple[str, str], str]) -> str:
    """The outcomes by class as Markdown; reasons of refusals are numbered."""
    reasons: list[str] = []
    lines = ["| model type | before | attention | inside |", "|---|---|---|---|"]
    for kind in dict.fromkeys(kind for kind, _ in found):
        cells = []
        for part in ("before", "attention", "inside"):
            outcome = found[kind, part]
            if outcome not in ("works", "fails"):
                word = "not built" if outcome.startswith("not built") else "refused"
                if outcome not in reasons:
                    reasons.append(outcome)
                outcome = f"{word} ({reasons.index(outcome) + 1})"
            cells.append(outcome)
        lines.append(f"| `{kind}` | " + " | ".join(cells) + " |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([*lines, "", "In the words a caller reads, names left out:", "", *notes, ""])


def _letter(known: list[str], one: str) -> str:
    """a for the first that came up, and so on; a new one is noted."""
    if one not in known:
        known.append(one)
    return chr(ord("a") + known.index(one))


def main() -> int:
    """Run the tests, write the page; the tests' exit code."""
    outcomes = Outcomes()
    words = "works_or_says_why_not or before_the or attention_of or inside_the"
    code = int(pytest.main([str(TESTS), str(EVERY), "-q", "-k", words], plugins=[outcomes]))
    release = version("transformers")
    page = HEAD.format(version=release) + table(outcomes.found)
    page += EVERY_HEAD.format(version=release) + every_class(outcomes.every)
    (ROOT / "docs" / "families.md").write_text(page, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
