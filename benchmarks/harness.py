"""What every benchmark here does alike: check first, measure interleaved, print what was found, one JSON line last.

A file is one claim. `python benchmarks/<file>.py` runs it alone; `make bench` runs them all and fills the table of the
README. Times are medians over rounds in which all contenders take turns, in one process, after a warm-up.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salience.core.environment import environment
from salience.lab.profile.latency import Stopwatch, measure_rounds


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The arguments of one selective scan, as a Mamba layer has them. u, dt, z: (B, L, D)   B, C: (B, L, N)"""

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    dt_bias: Tensor

    @staticmethod
    def random(*, length: int, channels: int = 1536, d_state: int = 16, batch: int = 1, seed: int = 0) -> Scan:
        """Standard normal inputs; A, D and the bias of dt as Mamba initialises them."""
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g)

        dt0 = torch.exp(torch.empty(channels).uniform_(-6.9, -2.3, generator=g))
        return Scan(
            u=normal(batch, length, channels), dt=0.1 * normal(batch, length, channels),
            A=-torch.arange(1.0, d_state + 1).repeat(channels, 1), B=normal(batch, length, d_state),
            C=normal(batch, length, d_state), D=torch.ones(channels), z=normal(batch, length, channels),
            dt_bias=dt0 + torch.log(-torch.expm1(-dt0)),
        )  # fmt: skip

    def to(self, dtype: torch.dtype) -> Scan:
        """The sequences in another type; the parameters stay in float32, as in mixed precision."""
        return Scan(**{n: x.to(dtype) if n in ("u", "dt", "B", "C", "z") else x for n, x in vars(self).items()})

    def require_grad(self) -> Scan:
        """The same, every tensor a leaf that wants its gradient."""
        return Scan(**{name: x.detach().clone().requires_grad_() for name, x in vars(self).items()})

    @property
    def updates(self) -> int:
        """State updates: B L D N."""
        return self.u.numel() * self.A.shape[1]


def rounds_ms(cases: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2) -> list[dict[str, float]]:
    """Milliseconds of each contender, taking turns, round by round. A result is let go after the clock stops.

    Freeing it may make the allocator give back what another contender left, which is nobody's work.
    """

    def timed(call: Callable[[], object], watch: Stopwatch) -> None:
        watch.start()
        result = call()
        watch.lap("call")
        del result

    bound = {name: functools.partial(timed, call) for name, call in cases.items()}
    seen = measure_rounds(bound, repeats=rounds, warmup=warmup)
    return [{name: seen[name][k]["call"] for name in cases} for k in range(rounds)]


def ratio(laps: list[dict[str, float]], slow: str, fast: str) -> float:
    """How many times as long `slow` takes: the median over rounds of what it is within one.

    Where a machine's speed jumps between two values from second to second, each contender's own median is one or the
    other by chance.
    """
    return statistics.median(lap[slow] / lap[fast] for lap in laps)


def median_ms(cases: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2) -> dict[str, float]:
    """Median milliseconds of each contender, over the rounds of `rounds_ms`."""
    laps = rounds_ms(cases, rounds=rounds, warmup=warmup)
    return {name: statistics.median(lap[name] for lap in laps) for name in cases}


def refuse_unless_close(what: str, got: Tensor, wanted: Tensor, *, within: float) -> None:
    """No speed is told of a wrong answer: exit code 1 unless `got` is `wanted` to `within` of its largest value."""
    error = float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())
    if not error <= within:
        sys.exit(f"{what} is off by {error:.1e} of the largest value ({within:.0e} is allowed): nothing is measured.")


def peer(module: str) -> Any:
    """A peer's module, or exit code 2 with what to install."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        print(f"this benchmark runs beside {name}: pip install -c constraints.txt -e '.[peers]'", file=sys.stderr)
        sys.exit(2)


def arguments(about: str, **defaults: int) -> argparse.Namespace:
    """The command line: one integer option for each default."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help="an integer")
    return parser.parse_args()


def report(claim: str, measured: Mapping[str, Any], lines: list[tuple[str, str]]) -> None:
    """Print the lines (what, figure), then one line of JSON: claim, environment and everything measured."""
    width = max(len(what) for what, _ in lines)
    print(claim)
    for what, figure in lines:
        print(f"  {what:<{width}}  {figure}")
    found = {"claim": claim, "lines": lines, "measured": dict(measured), "environment": environment()}
    print(json.dumps(found, allow_nan=False))
