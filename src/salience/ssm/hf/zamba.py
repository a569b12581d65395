"""transformers' Zamba: S6 per head, each head with its own x_proj and dt_proj; one grouped scan runs all heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salience.ssm.hf.mixer_parts import Family, Selected


@dataclass(frozen=True, kw_only=True)
class PerHead(Family):
    """Channel d belongs to head d // (E / heads), which is how a grouped scan counts its groups."""

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """x and z alternate channel by channel: one copy lays each out whole, since the operators read them often."""
        rows, length, _ = projected.shape
        x, z = projected.view(rows, length, -1, 2).movedim(-1, 0).contiguous().unbind()
        return x, z

    def select(self, mixer: Any, x: Tensor, backend: str) -> Selected:
        rows, length, _ = x.shape
        heads = x.reshape(rows, length, mixer.n_mamba_heads, -1)  # (B, L, H, E / H)
        selected = torch.einsum("blhe,hre->blhr", heads, mixer.x_proj_weight)
        rank, states = mixer.time_step_rank, mixer.ssm_state_size
        low, B, C = torch.split(selected, [rank, states, states], dim=-1)
        dt = torch.einsum("blhr,her->blhe", low, mixer.dt_proj_weight)
        return dt.flatten(-2), B, C, mixer.dt_proj_bias.flatten()

    def step(self, mixer: Any, x: Tensor, z: Tensor, window: Tensor, state: Tensor, backend: str) -> Tensor | None:
        return None


ZAMBA = PerHead(mixer="transformers.models.zamba.modeling_zamba.ZambaMambaMixer")
