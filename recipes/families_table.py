"""Fill the tables of docs/families.md from a run of the tests: `python recipes/families_table.py`."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from typing import Any

import pages
import pytest

SCRIPT = "recipes/families_table.py"
PAGE = pages.ROOT / "docs" / "families.md"
TESTS = pages.ROOT / "tests" / "vlm" / "test_methods_by_family.py"
EVERY = pages.ROOT / "tests" / "vlm" / "test_every_class.py"

# Name of a family in the tests -> its common name.
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


class Outcomes:
    """Pytest plug-in that collects the outcome which each test records."""

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
    """Outcomes as Markdown, a line for each family; letters refer to substitutes, numbers to reasons of refusals."""
    families = sorted({family for family, _ in found}, key=list(NAMES).index)
    methods = sorted({method for _, method in found})
    reasons: list[str] = []
    substitutes: list[str] = []
    rows = []
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
        rows.append([NAMES[family], *cells])
    lines = pages.table(["", *(f"`{name}`" for name in methods)], rows)
    if substitutes:
        said = [f"- {_letter(substitutes, one)}: {one}." for one in substitutes]
        lines += ["", "Substitutes, as the trace reports them:", "", *said]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    if notes:
        lines += ["", "Refused, with these messages:", "", *notes]
    return "\n".join(lines)


def every_class(found: dict[tuple[str, str], str]) -> str:
    """Outcomes as Markdown, a line for each model class; numbers refer to reasons of refusals."""
    reasons: list[str] = []
    rows = []
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
        rows.append([f"`{kind}`", *cells])
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    lines = pages.table(["model type", "before", "attention", "inside"], rows)
    return "\n".join([*lines, "", "Refused, with these messages (names left out):", "", *notes])


def _letter(known: list[str], one: str) -> str:
    """Letter of one of `known`, to which a new one is added: a for the first, and so on."""
    if one not in known:
        known.append(one)
    return chr(ord("a") + known.index(one))


def main() -> int:
    """Run the tests and rewrite the page; returns the tests' exit code."""
    outcomes = Outcomes()
    words = "works_or_says_why_not or before_the or attention_of or inside_the"
    code = int(pytest.main([str(TESTS), str(EVERY), "-q", "-k", words], plugins=[outcomes]))
    ran = f"Written from a run of the tests with transformers {version('transformers')}."
    pages.fill(PAGE, "methods", SCRIPT, f"{table(outcomes.found)}\n\n{ran}")
    pages.fill(PAGE, "classes", SCRIPT, f"{every_class(outcomes.every)}\n\n{ran}")
    return code


if __name__ == "__main__":
    sys.exit(main())
