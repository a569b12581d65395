"""One token through a `MambaLM` on a CPU as a fixed list of kernel calls, three a layer.

Checking arguments, making tensors and asking for backends costs 0.4 ms a layer, a quarter of a token of mamba-130m's
shape. For one model and one list of states all of it comes out the same each time: it is done once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.backend import eager, pick
from salience.ops.linear_rows import MOST_ROWS
from salience.ssm.layers.mamba import Mamba, MambaState
from salience.ssm.layers.projections import is_plain
from salience.ssm.layers.rms_norm import RMSNorm

if TYPE_CHECKING:
    from salience.ssm.models.mamba_lm import MambaLM

Parts = list[Tensor | None]
_kept: WeakKeyDictionary[MambaState, Decoder | None] = WeakKeyDictionary()  # by the first layer's state


class Decoder:
    """The calls for one model and its states, at the addresses that they had."""

    def __init__(self, model: MambaLM, parts: Parts, norms: list[float]) -> None:
        from salience.ops.linear_rows.cpu import call as linear
        from salience.ops.mamba_step.cpu import call as step

        self.parts, self.addresses = parts, _addresses(parts)  # holding them keeps their addresses from being reused
        embedding, head, norm_f, *rest = parts
        layers: list[list[Any]] = [rest[i : i + len(LAYER)] for i in range(0, len(rest), len(LAYER))]
        assert embedding is not None and head is not None and norm_f is not None
        window, state = layers[0][-2:]
        rows, channels = window.shape[0], window.shape[2]
        self.embedding, self.x = embedding, state.new_empty(rows, embedding.shape[1])  # the residual, not in half
        self.logits: Tensor = state.new_empty(rows, head.shape[0])
        xz, y = embedding.new_empty(rows, 2 * channels), embedding.new_empty(rows, channels)
        self.calls, self.between = [], (xz, y)
        for (norm, W_in, b_in, W_out, b_out, conv, conv_bias, W_x, W_dt, dt_bias, A_log, D, window, state), eps in zip(
            layers, norms[1:], strict=True
        ):
            x, z = xz.chunk(2, dim=-1)
            between: Any = (window, state, x, z, conv[:, 0], conv_bias, W_x, W_dt, dt_bias, A_log, D, y)
            self.calls += [linear(self.x, W_in, b_in, xz, norm=norm, eps=eps), step(*between)]
            self.calls += [linear(y, W_out, b_out, self.x, add=True)]
        self.calls += [linear(self.x, head, None, self.logits, norm=norm_f, eps=norms[0])]

    def __call__(self, ids: Tensor) -> Tensor:
        """ids (B,) -> logits (B, rows) in the compute dtype; the states move on."""
        self.x.copy_(F.embedding(ids, self.embedding))
        for call in self.calls:
            call.run()
        return self.logits.clone()


def decoder(model: MambaLM, ids: Tensor, states: Sequence[MambaState]) -> Decoder | None:
    """The calls for one more token, recorded anew where a tensor is another one; None where kernels cannot do it all.

    They can when every parameter is a plain contiguous tensor of one dtype on the CPU, nothing is wrapped or hooked,
    and there are few rows. The residual is then in float32 (float64), whatever `residual_in_fp32` says.
    """
    if model.backend not in ("auto", "cpu") or not eager() or torch.is_autocast_enabled("cpu"):
        return None
    parts = _parts(model, states)
    if parts is None or ids.shape != (states[0].conv.shape[0],):
        return None
    kept = _kept.get(states[0])
    if kept is None or kept.addresses != _addresses(parts):
        if not _suits(parts, states):
            return None
        norms = [model.backbone.norm_f.eps, *(block.norm.eps for block in model._blocks)]
        kept = _kept[states[0]] = Decoder(model, parts, norms)
    return kept if pick("mamba_step", (kept.embedding,), model.backend) == "cpu" else None


LAYER = "norm in in_bias out out_bias conv_weight conv_bias x dt dt_bias A_log D conv ssm".split()


def _parts(model: MambaLM, states: Sequence[MambaState]) -> Parts | None:
    """Every tensor that a token touches: the embedding, the head, the last norm, and LAYER's of each layer."""
    backbone = model.backbone
    modules = [(model.lm_head, nn.Linear), (backbone.norm_f, RMSNorm), (backbone.embeddings, nn.Embedding)]
    if not all(is_plain(module, kind) for module, kind in modules):
        return None
    found: Parts = [backbone.embeddings.weight, model.lm_head.weight, backbone.norm_f.weight]
    for block, state in zip(model._blocks, states, strict=True):
        mixer: Any = block.mixer
        inside = mixer._modules
        linears = [inside[name] for name in ("in_proj", "out_proj", "x_proj", "dt_proj")]
        modules = [(each, nn.Linear) for each in linears]
        modules += [(inside["conv1d"], nn.Conv1d), (block.norm, RMSNorm), (mixer, Mamba)]
        if not all(is_plain(module, kind) for module, kind in modules):
            return None
        held = [each._parameters for each in (*linears, inside["conv1d"])]
        found.append(block.norm.weight)
        for own in (*held[:2], held[4]):
            found += [own["weight"], own["bias"]]
        found += [held[2]["weight"], held[3]["weight"], held[3]["bias"], mixer.A_log, mixer.D, state.conv, state.ssm]
    return found


def _addresses(parts: Parts) -> list[int]:
    return [0 if each is None else each.data_ptr() for each in parts]


def _suits(parts: Parts, states: Sequence[MambaState]) -> bool:
    dtype, rows = states[0].conv.dtype, states[0].conv.shape[0]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scans = {id(state.ssm) for state in states}
    return 0 < rows <= MOST_ROWS[torch.float32] and all(
        type(each) in (Tensor, nn.Parameter)
        and each.device.type == "cpu"
        and each.dtype == (wide if id(each) in scans else dtype)
        and each.is_contiguous()
        for each in parts
        if each is not None
    )
