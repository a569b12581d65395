"""A method added as CONTRIBUTING says, by a file and a line in the table: it prunes, and is compared by name."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.lab.evaluate.prompts import prompt_inputs
from salience.lab.tradeoff import run as tradeoff
from salience.vlm.methods.registry import METHODS

CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"


@pytest.fixture
def brightest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The method's name. Its file is the recipe's own text; nothing but the table knows of it."""
    recipe = CONTRIBUTING.read_text().partition("## Recipe: add a pruning method")[2]
    block = re.search(r"```python\n(.*?)```", recipe, re.DOTALL)
    assert block is not None
    lines = textwrap.dedent(block[1]).splitlines()
    assert len(lines) < 60
    (tmp_path / "brightest.py").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "brightest", raising=False)
    monkeypatch.setitem(METHODS, "brightest", "brightest:Brightest")
    return "brightest"


@torch.no_grad()
def test_it_prunes_as_the_masked_sequence(
    brightest: str, tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any], noise: Callable[..., Any]
) -> None:
    model, processor = tiny_llava(84), tiny_processor(84)
    pictures = [noise(0), noise(1)]
    inputs = dict(prompt_inputs(processor, pictures, ["which digit is red ?", "is there a 7 ?"]))
    with salience.prune(model, brightest, keep=0.25) as pruned:
        short = model(**inputs).logits
    full_mask = inputs["attention_mask"].clone()
    for row, columns in enumerate(pruned.trace.columns):
        left = torch.zeros(full_mask.shape[1], dtype=torch.bool)
        left[columns[columns >= 0]] = True
        full_mask[row, ~left] = 0
        assert int((inputs["input_ids"][row] == model.config.image_token_id)[left].sum()) == 9
    places = torch.arange(full_mask.shape[1]).expand_as(full_mask)
    full = model(**{**inputs, "attention_mask": full_mask, "position_ids": places}).logits
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (inputs["attention_mask"][row, columns.clamp_min(0)] == 1)
        # float32, logits of order one: the same sums over fewer terms in another order
        torch.testing.assert_close(short[row, real], full[row, columns[real]], atol=1e-5, rtol=0)


def test_it_keeps_the_longest_features(brightest: str) -> None:
    from salience.core.types import TokenContext, VisualGrid
    from salience.vlm.methods.budget import Budget
    from salience.vlm.methods.registry import method_class

    features = torch.tensor([[0.0, 1], [3, 4], [1, 1], [2, 0]])
    context = TokenContext(features=features, grid=VisualGrid(rows=2, columns=2))
    assert method_class(brightest)().select(context, Budget(keep=0.5)).kept.tolist() == [1, 3]


def test_it_is_compared_by_name(
    brightest: str, tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]
) -> None:
    config = tradeoff.TradeoffConfig(
        methods=(brightest, "random"), keeps=(0.25,), pictures=2, questions=2, probe_pictures=0, draws=1, costs=False,
        examples=0, control_pictures=1, control_shifts=1,
    )  # fmt: skip
    record = tradeoff.run(tiny_llava(84), config, processor=tiny_processor(84), quiet=True).to_json()
    rows = {(row["method"], row["keep"]): row for row in record["rows"]}
    assert set(rows) == {(name, keep) for name in (brightest, "random") for keep in (1.0, 0.25)}
    assert rows[brightest, 0.25]["tokens_kept"] == 9
    assert (brightest, "random") in {(line["method"], line["against"]) for line in record["differences"]}
    with pytest.raises(ValueError, match="did you mean 'brightest'"):
        tradeoff.TradeoffConfig(methods=("brightes",))
