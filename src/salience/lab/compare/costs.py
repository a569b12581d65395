"""Costs of a comparison: memory of training, and speed and memory of inference against length."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.progress import ProgressBars
from salience.core.result_tables import LengthCost
from salience.lab.compare.config import CompareConfig, ModelSpec
from salience.lab.compare.training_run import model_of
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.peak_memory import peak_bytes

_PROBE = (64, 128)  # lengths of the two sequences that the slope is measured on
_BESIDE = 1.5  # rough factor for gradients and scratch space beside the saved activations
_WARM = 2


def require_memory(config: CompareConfig, task: SequenceTask, device: str) -> None:
    """Raise ValueError, one sentence with an estimate, where a model's training step would not fit."""
    free = available(device)
    needs = {model.name: training_bytes(config, model, task) for model in config.read}
    name = max(needs, key=lambda known: needs[known])
    whole = needs[name] * (config.processes if device == "cpu" else 1)
    if free is None or whole < free:
        return
    at_once = f", {config.processes} at a time" if whole > needs[name] else ""
    raise ValueError(
        f"length is {task.length:,}: training {name} on batches of {config.batch} would take about "
        f"{whole / 2**30:,.1f} GiB{at_once}, but {free / 2**30:,.1f} GiB are free; a smaller length, batch or width is "
        "needed."
    )


def training_bytes(config: CompareConfig, model: ModelSpec, task: SequenceTask) -> float:
    """Bytes of one training step: weights, gradients, two moments, and autograd's saved tensors.

    The saved tensors are counted on two short sequences and extrapolated as a line in the length.
    """
    network = model_of(config, model, task, 0)[0]
    kept = []
    for length in _PROBE:
        inputs = torch.zeros(1, length, dtype=torch.int64) if task.vocabulary else torch.zeros(1, length, task.d_input)
        seen: dict[int, int] = {}

        def keep(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = network(inputs)
            F.cross_entropy(logits.flatten(0, -2), torch.zeros(logits[..., 0].numel(), dtype=torch.int64))
        kept.append(sum(seen.values()))
    slope = max(0.0, (kept[1] - kept[0]) / (_PROBE[1] - _PROBE[0]))
    weights = sum(parameter.nbytes for parameter in network.parameters())
    return 4.0 * weights + _BESIDE * slope * task.length * config.batch


def available(device: str) -> float | None:
    """Free bytes on the device; None where the system does not tell."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(torch.device(device))[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        try:
            return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (ValueError, OSError, AttributeError):
            return None
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, float(text))
    return free


def measure_lengths(config: CompareConfig, task: SequenceTask, device: str, bars: ProgressBars) -> list[LengthCost]:
    """Measure every untrained model at every length on one sequence; times are medians over `config.rounds` rounds."""
    networks = {m.name: model_of(config, m, task, config.seed)[0].to(device).eval() for m in config.read}
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
