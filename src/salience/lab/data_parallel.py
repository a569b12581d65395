"""Data-parallel helpers for `accelerate launch`: each process takes a part of the job; in training, of every batch.

A process that was started by itself needs no accelerate.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor, nn


class ProcessGroup:
    """The processes of one job, as one of them sees it; this class is a process by itself.

    index: number of this process   count: number of processes   device: of this process's model
    """

    index = 0
    count = 1

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)

    @property
    def first(self) -> bool:
        """Whether this process writes files and draws progress."""
        return self.index == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module to call for the loss. Its gradients are the mean over the processes."""
        return model

    def part(self, index: Tensor) -> Tensor:
        """Return this process's examples of a batch (b,): every n-th, or all if there are fewer than processes."""
        return index[self.index :: self.count] if len(index) >= self.count else index

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Return each number summed over the processes."""
        return numbers

    def wait(self) -> None:
        """Wait until all processes have called this."""


class LaunchedGroup(ProcessGroup):
    """One of several launched processes. Its environment holds its number; `accelerate` chooses device and backend."""

    def __init__(self, device: str | torch.device) -> None:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        # One process may measure for hours while the others wait. The launcher notices a process that died.
        patient = InitProcessGroupKwargs(timeout=timedelta(days=30))
        self._accelerator: Any = Accelerator(cpu=torch.device(device).type == "cpu", kwargs_handlers=[patient])
        super().__init__(self._accelerator.device)
        self.index, self.count = self._accelerator.process_index, self._accelerator.num_processes

    def wrap(self, model: nn.Module) -> nn.Module:
        """Distributed data parallel around the model."""
        return cast("nn.Module", self._accelerator.prepare_model(model))

    def total(self, *numbers: float) -> tuple[float, ...]:
        """float64 where the device has it, so that counts stay whole."""
        sums = self._accelerator.reduce(torch.tensor(numbers, dtype=torch.float64, device=self.device), "sum")
        return tuple(sums.tolist())

    def wait(self) -> None:
        """A barrier."""
        self._accelerator.wait_for_everyone()


def launched() -> bool:
    """Whether a launcher started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def process_group(device: str | torch.device) -> ProcessGroup:
    """Return the processes of this job. The launcher chooses which of several GPUs each one uses.

    Raises: ModuleNotFoundError, saying what to install, where several were launched and accelerate is missing
    """
    if not launched():
        return ProcessGroup(device)
    try:
        return LaunchedGroup(device)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Several processes share their work through 'accelerate', which is not installed: pip install accelerate",
            name="accelerate",
        ) from error
