"""The study's second half: does the second direction pay? Sequence models on a task where it must, and one where not.

A column of a strip of digits is told by the columns on both sides of it; a whole picture's class by all of its patches,
in whatever order they are read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from salience.core.backend import resolve_device
from salience.core.progress import ProgressBars
from salience.core.record import Record
from salience.lab.compare.config import LENGTHS, CompareConfig
from salience.lab.compare.run import compare
from salience.lab.result_cache import ResultCache

MODELS = ("mamba", "bimamba", "transformer")
_SEEDS = 3


def comparisons(*, quick: bool = False, seed: int = 0) -> tuple[CompareConfig, ...]:
    """One comparison a task, of which the first also times inference; `quick`: the same path on few examples."""
    if quick:
        small = CompareConfig(models=MODELS, seeds=1, epochs=1, width=16, lengths=(256,), rounds=1, seed=seed)
        return (
            replace(small, task="digit-tagging:epoch=32,test=16"),
            replace(small, task="digits49:train=32,test=16", lengths=()),
        )
    processes = min(os.cpu_count() or 1, _SEEDS * len(MODELS))
    whole = CompareConfig(
        models=MODELS, seeds=_SEEDS, width=32, rates=(4e-3,), lengths=LENGTHS[:-1], rounds=5, processes=processes,
        threads=1, seed=seed,
    )  # fmt: skip
    return (
        replace(whole, task="digit-tagging:epoch=800", batch=16, control=True),
        replace(whole, task="digits49:train=3000", lengths=()),
    )


def compare_all(
    configs: Sequence[CompareConfig], *, device: str, cache: ResultCache, bars: ProgressBars
) -> list[Record]:
    """The comparisons one after the other; off the CPU a fit has the device alone."""
    alone = resolve_device(device).type != "cpu"
    chosen = [replace(one, processes=1, threads=0) if alone else one for one in configs]
    return [compare(one, device=device, cache=cache, bars=bars) for one in chosen]
