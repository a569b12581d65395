"""Hydra's mixing matrix on S6: quasiseparable, with separate lower, upper and diagonal parts.

y = shift(scan(x)) + the same from the other end + (D + fc_D x) x, then the gate silu(z).

The shift by one step keeps each direction's matrix strictly below (above) the diagonal. The convolution is centred.
A, dt_proj and the outer projections are shared; dt's low-rank form, B and C exist once for each direction.

Source: Hwang, Lahoti, Dao and Gu, arXiv:2407.09941, equation 8 and figure 4. Deviations: S6 with dt of low rank
(Mamba-1's block) in place of SSD's heads; the gate as in Mamba, without a norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.ops.causal_conv1d import causal_conv1d
from salience.ops.selective_scan import selective_scan
from salience.ssm.layers.convolutions import called_on_windows
from salience.ssm.layers.projections import is_plain, project_apart
from salience.ssm.layers.s6 import decay

if TYPE_CHECKING:
    from salience.ssm.layers.bimamba import BiMamba


def mix_both_ways(layer: BiMamba, u: Tensor, z: Tensor, options: dict[str, Any]) -> Tensor:
    """Everything between the outer projections: u, z (B, L, E) -> (B, L, E). options: mask, seq_idx, backend."""
    u = F.silu(_centred(layer, u, options))
    y: Tensor = u * (layer.fc_D(u) + layer.D)  # the diagonal
    A, N = decay(layer.A_log), layer.d_state
    selected = layer.x_proj(u).chunk(2, dim=-1)  # (B, L, R + 2N) each direction
    for reverse, one in zip((False, True), selected, strict=True):
        low, B, C = one.split([one.shape[-1] - 2 * N, N, N], dim=-1)
        dt, bias = project_apart(layer.dt_proj, low, layer.backend)
        way = selective_scan(u, dt, A, B, C, dt_bias=bias, dt_softplus=True, reverse=reverse, **options)
        shift = F.pad(way.new_ones(layer.d_inner, 1), (0, 1))  # as a convolution, which respects padding and packing
        y = y + causal_conv1d(way, shift, reverse=reverse, **options)
    return y * F.silu(z)


def _centred(layer: BiMamba, u: Tensor, options: dict[str, Any]) -> Tensor:
    """Centred convolution, as the sum of a causal one (with the middle weight) and a reversed one."""
    half = layer.d_conv // 2
    if not is_plain(layer.conv1d, nn.Conv1d):
        taps = torch.eye(half + 1, dtype=u.dtype, device=u.device)[:, None].expand(-1, layer.d_inner, -1)
        windows = [causal_conv1d(u, tap, **options) for tap in taps]
        windows += [causal_conv1d(u, tap, reverse=True, **options) for tap in taps[:half].flip(0)]
        y, mask = called_on_windows(layer.conv1d, windows), options["mask"]
        return y if mask is None else y.masked_fill(~mask[..., None], 0)
    weight = layer.conv1d.weight.squeeze(1)
    before: Tensor = causal_conv1d(u, weight[:, : half + 1], layer.conv1d.bias, **options)
    after = torch.cat([weight[:, half + 1 :].flip(1), weight.new_zeros(layer.d_inner, 1)], dim=1)
    behind: Tensor = causal_conv1d(u, after, reverse=True, **options)
    return before.add(behind)
