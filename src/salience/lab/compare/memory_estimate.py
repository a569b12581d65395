"""How much memory training needs, estimated before it begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from salience.lab.compare.config import CompareConfig
from salience.lab.compare.training_run import model_of
from salience.lab.data.sequences.sequence_task import SequenceTask

_PROBE = (64, 128)  # steps of the two sequences that the slope is taken from
_BESIDE = 1.5  # what is alive beside what the backward keeps: gradients and scratch space, roughly


def require_memory(config: CompareConfig, task: SequenceTask, device: str) -> None:
    """Raise ValueError, one sentence with an estimate, when a model's training step would not fit.

    What autograd keeps is counted on two short sequences and drawn on as a line in the length.
    """
    free = available(device)
    needs = {model.name: training_bytes(config, model.name, task) for model in config.read}
    name = max(needs, key=lambda known: needs[known])
    whole = needs[name] * (config.processes if device == "cpu" else 1)
    if free is None or whole < free:
        return
    at_once = f", {config.processes} at a time" if whole > needs[name] else ""
    raise ValueError(
        f"length is {task.length:,}: training {name} on batches of {config.batch} would take about {_gib(whole)}"
        f"{at_once}, but {_gib(free)} are free; a smaller length, batch or width is needed."
    )


def training_bytes(config: CompareConfig, name: str, task: SequenceTask) -> float:
    """Bytes of one training step: weights, gradients, two moments, and what the backward keeps."""
    from salience.lab.compare.config import read_model

    network = model_of(config, read_model(name), task, 0).network
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
    """Bytes that are free on the device; None where that can't be told."""
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
    limit: Any = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, float(text))
    return free


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
