"""RMS norm of Mamba language models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the mean in float32."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) in any float -> the same in the weight's dtype."""
        wide = x if x.dtype == torch.float64 else x.float()
        normed = F.rms_norm(wide, self.weight.shape, None, self.eps)
        return normed.to(self.weight.dtype) * self.weight
