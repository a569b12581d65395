"""Costs of inference against length: tokens per second and peak memory, interleaved in one process."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from salience.core.progress import ProgressBars
from salience.core.result_tables import LengthCost
from salience.lab.compare.config import CompareConfig
from salience.lab.compare.training_run import model_of
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.peak_memory import peak_bytes

_WARM = 2


def measure_lengths(config: CompareConfig, task: SequenceTask, device: str, bars: ProgressBars) -> list[LengthCost]:
    """Measure every model at every length on one sequence; times are medians over `config.rounds` rounds.

    The models are untrained, because speed does not depend on the weights.
    """
    networks = {m.name: model_of(config, m, task, config.seed).network.to(device).eval() for m in config.read}
    inputs = {length: _inputs(task, length).to(device) for length in config.lengths}
    calls = {(name, length): partial(_read, networks[name], x) for length, x in inputs.items() for name in networks}
    rounds = (_WARM + config.rounds) * len(calls)
    with bars.bar("inference against length", rounds) as tick, torch.inference_mode():
        times = measure(calls, repeats=config.rounds, warmup=_WARM, device=torch.device(device), tick=tick)
        return [
            LengthCost(
                model=name,
                length=length,
                tokens_per_s=length / times[name, length]["read"] * 1e3,
                peak_bytes=peak_bytes(partial(networks[name], inputs[length]), networks[name].parameters()),
            )
            for name, length in calls
        ]


def _read(network: nn.Module, inputs: Tensor, watch: Stopwatch) -> None:
    network(inputs)
    watch.lap("read")


def _inputs(task: SequenceTask, length: int) -> Tensor:
    made = torch.Generator().manual_seed(0)
    if task.vocabulary:
        return torch.randint(task.vocabulary, (1, length), generator=made)
    return torch.randn(1, length, task.d_input, generator=made)
