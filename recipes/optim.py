"""Muon for matrices, AdamW for the rest, with a float32 master copy behind bfloat16 weights.

On CPUs with bfloat16 dot products the matrix work of a step runs about twice as fast in bfloat16; the master copy keeps
small steps from being rounded away. Muon: momentum orthogonalised by five Newton-Schulz steps (Jordan et al., 2024).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Nearest-to-orthogonal matrices for a stack (m, rows, columns) by Newton-Schulz iteration."""
    wide = stack.bfloat16()
    turned = wide.shape[1] > wide.shape[2]
    wide = wide.transpose(1, 2) if turned else wide
    wide = wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = wide @ wide.transpose(1, 2)
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return (wide.transpose(1, 2) if turned else wide).float()


class MuonAdamW:
    """Steps `matrices` with Muon and `others` with AdamW(.9, .95); clips the gradient's norm at 1.

    matrices may hold tensors that stack several matrices along their rows (none here do); the rate is shared: Muon's
    step is scaled by .2 sqrt(max(shape)), which gives it AdamW's root mean square.
    """

    def __init__(self, matrices: Iterable[Tensor], others: Iterable[Tensor], decay: float = 0.01) -> None:
        self.matrices, self.others, self.decay = list(matrices), list(others), decay
        self.live = self.matrices + self.others
        self.master = [p.detach().float().clone() for p in self.live]
        self.momentum = [torch.zeros_like(m) for m in self.master]
        self.second = [torch.zeros_like(m) for m in self.master[len(self.matrices) :]]
        self.count = 0

    def zero_grad(self) -> None:
        for p in self.live:
            p.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """One step at that learning rate; returns the gradient's norm before clipping."""
        self.count += 1
        grads = [
            torch.zeros_like(m) if p.grad is None else p.grad.float()
            for p, m in zip(self.live, self.master, strict=True)
        ]
        norm = float(torch.sqrt(sum((g.square().sum() for g in grads), torch.zeros(()))))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm} at step {self.count}")
        scale = min(1.0, 1.0 / (norm + 1e-6))
        cut = len(self.matrices)
        self._muon(grads[:cut], rate, scale)
        for n, grad in enumerate(grads[cut:]):
            self._adamw(n, grad * scale, rate)
        torch._foreach_copy_([p.data for p in self.live], self.master)
        return norm

    def _muon(self, grads: list[Tensor], rate: float, scale: float) -> None:
        groups: dict[torch.Size, list[int]] = defaultdict(list)
        for n, grad in enumerate(grads):
            self.momentum[n].mul_(0.95).add_(grad, alpha=scale)
            groups[grad.shape].append(n)
        for shape, members in groups.items():
            ahead = torch.stack([grads[n] * scale + 0.95 * self.momentum[n] for n in members])
            steps = orthogonalise(ahead) * (0.2 * math.sqrt(max(shape)) * rate)
            for n, step in zip(members, steps, strict=True):
                self.master[n].mul_(1 - rate * self.decay).sub_(step)

    def _adamw(self, n: int, grad: Tensor, rate: float) -> None:
        first, second, master = (
            self.momentum[len(self.matrices) + n],
            self.second[n],
            self.master[len(self.matrices) + n],
        )
        first.lerp_(grad, 0.1)
        second.lerp_(grad.square(), 0.05)
        bias1, bias2 = 1 - 0.9**self.count, 1 - 0.95**self.count
        if master.dim() > 1:
            master.mul_(1 - rate * self.decay)
        master.sub_(first / bias1 / (torch.sqrt(second / bias2) + 1e-8) * rate)

    def state_dict(self) -> dict[str, object]:
        return {"master": self.master, "momentum": self.momentum, "second": self.second, "count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name in ("master", "momentum", "second"):
            for ours, theirs in zip(getattr(self, name), state[name], strict=True):  # type: ignore[call-overload]
                ours.copy_(theirs)
        self.count = int(state["count"])  # type: ignore[call-overload]
        with torch.no_grad():
            torch._foreach_copy_([p.data for p in self.live], self.master)


def cosine(step: int, steps: int, peak: float, floor: float, warm: float = 0.05) -> float:
    """The rate at a step: a linear warm-up over the share `warm`, then a cosine from peak to floor * peak."""
    ramp = max(1, int(steps * warm))
    if step < ramp:
        return peak * (step + 1) / ramp
    along = (step - ramp) / max(1, steps - ramp)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along)))
