"""One job by several processes, as `accelerate launch` starts them: each takes a part of it, in a fit of every batch.

A process that was started by itself is alone, needs no accelerate and computes what it always did.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor, nn


class Alone:
    """One process. index: its number   count: how many there are   device: where its model lies"""

    index = 0
    count = 1

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)

    @property
    def first(self) -> bool:
        """Whether this process writes files and draws progress."""
        return self.index == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """What to call for the loss: its gradients are the mean over the processes."""
        return model

    def part(self, index: Tensor) -> Tensor:
        """This process's examples of a batch (b,): every n-th; all where there are fewer examples than processes."""
        return index[self.index :: self.count] if len(index) >= self.count else index

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Each number summed over the processes."""
        return numbers

    def wait(self) -> None:
        """Go on when all processes have come here."""


class Launched(Alone):
    """One of several processes, told by its environment which; `accelerate` finds the device and the way to talk."""

    def __init__(self, device: str | torch.device) -> None:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        # Nobody is late: one may measure for hours while the others wait. Who dies is the launcher's to notice.
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


def together(device: str | torch.device) -> Alone:
    """The processes that fit on `device`; which of several GPUs is the launcher's choice.

    Raises: ModuleNotFoundError, saying what to install, where several were launched and accelerate is missing
    """
    if not launched():
        return Alone(device)
    try:
        return Launched(device)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Several processes share their work through 'accelerate', which is not installed: pip install accelerate",
            name="accelerate",
        ) from error
