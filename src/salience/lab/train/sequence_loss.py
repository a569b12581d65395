"""Loss and accuracy of a sequence model on a split, in total and for each example."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.lab.data.sequences.splits import IGNORE, Batch, Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Result on one split.

    loss: nats a target   accuracy: share of correct targets
    right, asked: (n,) int64, correct targets and all targets of each example, for intervals and paired tests
    """

    loss: float
    accuracy: float
    right: Tensor
    asked: Tensor


def evaluate(model: nn.Module, split: Split, *, batch: int = 128, device: str | torch.device = "cpu") -> Evaluation:
    """Evaluate every example of the split. The model keeps its mode."""
    training = model.training
    model.eval()
    total, right, asked = 0.0, [], []
    try:
        with torch.no_grad():
            for found in split.batches(batch):
                logits, targets = logits_of(model, found, device)
                total += float(loss_sum(logits, targets))
                hit = (logits.argmax(-1) == targets).view(len(targets), -1)  # (b, targets an example)
                right.append(hit.sum(1).cpu())
                asked.append((targets != IGNORE).view(len(targets), -1).sum(1).cpu())
    finally:
        model.train(training)
    hits, count = torch.cat(right), torch.cat(asked)
    targets_in_all = int(count.sum())
    return Evaluation(loss=total / targets_in_all, accuracy=int(hits.sum()) / targets_in_all, right=hits, asked=count)


def logits_of(model: nn.Module, batch: Batch, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Return model(inputs, mask=...) and the targets. Raises ValueError unless logits are (*targets, K)."""
    mask = None if batch.mask is None else batch.mask.to(device)
    logits, targets = model(batch.inputs.to(device), mask=mask), batch.targets.to(device)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"the model's logits are {tuple(logits.shape)}, but {(*targets.shape, 'classes')} are needed for this task."
        )
    return logits, targets


def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross-entropy over the targets that are not -100, in nats and float32."""
    return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction="sum")
