"""Inference against length: tokens a second and peak memory of untrained copies, interleaved in one process."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.progress import Stages
from salience.data.sequences.task import SequenceTask
from salience.profiling.latency import Stopwatch, measure
from salience.profiling.memory import peak_bytes
from salience.studies.compare_config import CompareConfig
from salience.studies.compare_run import model_of

_WARM = 2


def measure_lengths(config: CompareConfig, task: SequenceTask, device: str, bars: Stages) -> list[dict[str, Any]]:
    """model, length, tokens_per_s (median over rounds that run every model once), peak_bytes: one sequence, read whole.

    How fast a model reads doesn't depend on what it learnt, so fresh weights serve.
    """
    networks = {m.name: model_of(config, m, task, config.seed).network.to(device).eval() for m in config.read}
    found: list[dict[str, Any]] = []
    with bars.stage("inference against length", len(config.lengths)) as tick, torch.inference_mode():
        for length in config.lengths:
            inputs = _inputs(task, length).to(device)
            cases = {name: partial(_read, network, inputs) for name, network in networks.items()}
            times = measure(cases, repeats=config.rounds, warmup=_WARM, device=torch.device(device))
            for name, network in networks.items():
                peak = peak_bytes(partial(network, inputs), network.parameters())
                rate = length / times[name]["read"] * 1e3
                found.append({"model": name, "length": length, "tokens_per_s": rate, "peak_bytes": peak})
            tick()
    return found


def _read(network: nn.Module, inputs: Tensor, watch: Stopwatch) -> None:
    network(inputs)
    watch.lap("read")


def _inputs(task: SequenceTask, length: int) -> Tensor:
    made = torch.Generator().manual_seed(0)
    if task.vocabulary:
        return torch.randint(task.vocabulary, (1, length), generator=made)
    return torch.randn(1, length, task.d_input, generator=made)
