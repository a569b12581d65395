"""Matching parameters: models of different mixers are compared at the width where each has about as many."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from salience.ssm.layers.s6 import whole_number
from salience.ssm.models.pattern import parse_pattern
from salience.ssm.models.sequence_model import SequenceModel

_STEP = 8  # widths are multiples of it, for the kernels' sake
_WIDEST = 1 << 14


class Match(NamedTuple):
    """d_model: the width   n_params: what a model of this width has"""

    d_model: int
    n_params: int

    def rest(self, target_params: int) -> str:
        """How far it is from what was asked for, in words."""
        off = self.n_params - target_params
        told = f"{abs(off) / target_params:.1%} {'more' if off > 0 else 'fewer'} than" if off else "exactly"
        return f"width {self.d_model}: {self.n_params:,} parameters, {told} the {target_params:,} asked for"


def match_width(target_params: int, **config: Any) -> Match:
    """The width whose model comes nearest to `target_params`, of two as near the smaller; nothing is allocated.

    Widths are multiples of 8, and of twice the heads where there is attention.

    Args:    config: as for `SequenceModel`, without d_model
    Returns: (d_model, n_params); `.rest(target_params)` says in words what is missing or too much
    Raises:  ValueError when the target is no whole number of at least 1, or as `SequenceModel`
    """
    whole_number("target_params", target_params)
    if "d_model" in config:
        raise ValueError("d_model must be left out: it is what is looked for.")
    step = _step(config)
    low, high = 1, 1  # in steps; the parameters grow with the width
    while _count(high * step, config) < target_params:
        if high * step > _WIDEST:
            raise ValueError(
                f"target_params must be less than a model of width {high * step} has, not {target_params:,}."
            )
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _count(middle * step, config) < target_params else (low, middle)
    found = [Match(each * step, _count(each * step, config)) for each in sorted({low, high})]
    return min(found, key=lambda each: abs(each.n_params - target_params))


def _step(config: dict[str, Any]) -> int:
    """The least width that every layer of the pattern takes."""
    pattern, given = parse_pattern(config.get("mixer", "MMMA")), config.get("mixer_options") or {}
    heads = [given.get(letter, {}).get("n_heads", 4) for letter in pattern if letter in "AW"]
    return math.lcm(_STEP, *(2 * each for each in heads if isinstance(each, int) and each > 0))


def _count(d_model: int, config: dict[str, Any]) -> int:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return SequenceModel(d_model=d_model, **config).n_params()
