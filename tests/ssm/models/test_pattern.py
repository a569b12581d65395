"""Patterns of letters and their names."""

from __future__ import annotations

import pytest

from salience.ssm.models.pattern import ALIASES, LAYERS, is_causal, parse_pattern
from salience.ssm.models.sequence_config import layer_class


def test_patterns_stay_and_aliases_are_patterns() -> None:
    assert parse_pattern("MMMA") == "MMMA"
    assert parse_pattern("MAMBA") == "MAMBA"  # five layers; the alias is lower case
    assert parse_pattern("hybrid") == "MMMA" and parse_pattern("mamba") == "M" and parse_pattern("s5") == "5"
    assert all(set(pattern) <= set(LAYERS) for pattern in ALIASES.values())


def test_every_letter_has_its_layer() -> None:
    names = [layer_class(letter).__name__ for letter in LAYERS]
    assert names == ["Mamba", "BiMamba", "Attention", "WindowedAttention", "S4D", "S4", "S5", "LSTM"]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("mmma", "MMMA"),
        ("bimabma", "bimamba"),
        ("S4D", "s4d"),
        ("LSTM", "lstm"),
        ("transfomer", "transformer"),
        ("MMXA", "mamba"),
    ],
)
def test_the_nearest_is_named(text: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"mixer must be letters of MBAWDS5L.*not '{text}'.*did you mean {near}[?]$"):
        parse_pattern(text)


def test_an_unknown_letter_is_named() -> None:
    with pytest.raises(ValueError, match=r"not ''[.]$"):
        parse_pattern("")
    with pytest.raises(ValueError, match=r"not 'MMXA' \('X' is no layer\)"):
        parse_pattern("MMXA")


@pytest.mark.parametrize(
    ("pattern", "causal", "one_way"),
    [("MMMA", True, True), ("MMMA", False, False), ("MD5S", False, True), ("MB", True, False), ("L", False, False)],
)
def test_who_sees_later_steps(pattern: str, causal: bool, one_way: bool) -> None:
    assert is_causal(pattern, causal) is one_way
