"""Mixer patterns: one letter a layer, repeated over the layers, and names for the common ones."""

from __future__ import annotations

import difflib

#: letter -> (module, class) of the layer it stands for
LAYERS = {
    "M": "salience.ssm.layers.mamba:Mamba",
    "B": "salience.ssm.layers.bimamba:BiMamba",
    "A": "salience.ssm.layers.attention:Attention",
    "W": "salience.ssm.layers.windowed:WindowedAttention",
    "D": "salience.ssm.layers.s4d:S4D",
    "S": "salience.ssm.layers.s4:S4",
    "5": "salience.ssm.layers.s5:S5",
    "L": "salience.ssm.layers.lstm:LSTM",
}
#: what may be said in place of a pattern
ALIASES = {
    "mamba": "M", "bimamba": "B", "hybrid": "MMMA", "s4": "S", "s4d": "D", "s5": "5", "transformer": "A",
    "sparse": "W", "lstm": "L",
}  # fmt: skip
#: letters whose layers read one way or both, as `causal` says; B always reads both ways, the others one
EITHER_WAY = "AWL"
BOTH_WAYS = "B"


def parse_pattern(text: str) -> str:
    """A pattern of letters ("MMMA") as it is, an alias ("hybrid") as the pattern it stands for.

    Raises:  ValueError for anything else, naming the nearest pattern or alias
    """
    if text in ALIASES:
        return ALIASES[text]
    unknown = [letter for letter in text if letter not in LAYERS]
    if text and not unknown:
        return text
    raise ValueError(
        f"mixer must be letters of {''.join(LAYERS)}, a layer each, or one of {', '.join(ALIASES)}, not {text!r}"
        f"{_hint(text, unknown)}"
    )


def _hint(text: str, unknown: list[str]) -> str:
    """What is unknown about it, where some letters are known, and what was probably meant."""
    if not text:
        return "."
    letter = f" ({unknown[0]!r} is no layer)" if len(unknown) < len(text) else ""
    if not set(text.upper()) - set(LAYERS) and text.lower() not in ALIASES:
        return f"{letter}; did you mean {text.upper()}?"
    near = difflib.get_close_matches(text.lower(), ALIASES, n=1, cutoff=0.0)[0]
    return f"{letter}; did you mean {near}?"


def is_causal(pattern: str, causal: bool) -> bool:
    """Whether no step of a model with this pattern sees a later one."""
    return not any(letter in BOTH_WAYS or (letter in EITHER_WAY and not causal) for letter in pattern)
