"""Matching parameters: the nearest width, and what is told of the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salience import SequenceModel
from salience.ssm.models.matching import match_width
from salience.ssm.models.pattern import LAYERS

SHAPE: dict[str, Any] = {"n_layers": 2, "n_classes": 10, "d_input": 16}


@pytest.mark.parametrize("mixer", [*LAYERS, "MA"])
def test_no_other_width_is_nearer(mixer: str) -> None:
    before = torch.random.get_rng_state()
    width, count = match_width(20_000, mixer=mixer, **SHAPE)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert SequenceModel(mixer=mixer, d_model=width, **SHAPE).n_params() == count
    for other in (width - 8, width + 8):
        if other > 0:
            assert abs(SequenceModel(mixer=mixer, d_model=other, **SHAPE).n_params() - 20_000) >= abs(count - 20_000)


def test_heads_and_extremes() -> None:
    options = {"A": {"n_heads": 6}}
    assert match_width(20_000, mixer="A", mixer_options=options, **SHAPE).d_model % 12 == 0
    assert match_width(1, mixer="mamba", **SHAPE).d_model == 8
    wide = match_width(10**9, mixer="mamba", **SHAPE)  # four gigabytes, were they allocated
    assert wide.n_params == pytest.approx(10**9, rel=0.01)


def test_the_rest_is_told() -> None:
    exact = SequenceModel(mixer="mamba", d_model=24, **SHAPE).n_params()
    found = match_width(exact, mixer="mamba", **SHAPE)
    assert found == (24, exact)
    assert found.rest(exact) == f"width 24: {exact:,} parameters, exactly the {exact:,} asked for"
    assert f"{exact:,} parameters, 100.0% more than the {exact // 2:,} asked for" in found.rest(exact // 2)
    assert ", 50.0% fewer than" in found.rest(2 * exact)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: match_width(0, mixer="mamba", **SHAPE), "target_params must be a whole number of at least 1, not 0"),
        (lambda: match_width(10, mixer="mamba", d_model=8, **SHAPE), "d_model must be left out"),
        (lambda: match_width(10, mixer="mambo", **SHAPE), "did you mean mamba"),
        (lambda: match_width(10**15, mixer="mamba", **SHAPE), "target_params must be less than a model of width"),
    ],
)
def test_bad_input_is_named(ask: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ask()
