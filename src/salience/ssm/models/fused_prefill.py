"""A `MambaLM` on many tokens without gradients, where `linear_rows` has a kernel for many rows.

A layer's norm then belongs to its first product and its residual to its last, which adds to x where it lies; the widest
result lies where the layer before had it. Each pass over a fresh tensor of its own would cost as much as the
convolution, and torch's threads, woken for it, go on spinning beside the scan.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from salience.core.backend import pick
from salience.ops.linear_rows.api import many_suit, plain_tensors
from salience.ssm.layers.mamba import Mamba, MambaState
from salience.ssm.layers.projections import is_plain

if TYPE_CHECKING:
    from salience.ssm.models.mamba_lm import Block, MambaLM


class Joined:
    """One forward of a model: the scratch that its layers share, and x (B, L, d_model), which they change."""

    def __init__(self, model: MambaLM, x: Tensor) -> None:
        from salience.ops.linear_rows.cpu_many import packed_size
        from salience.ops.simd import empty

        self.model, self.shape, self.x = model, x.shape[:-1], x.view(-1, x.shape[-1])
        mixer, rows = model._blocks[0].mixer, math.prod(self.shape)
        self.xz = empty(rows, 2 * mixer.d_inner)
        self.packed = empty(packed_size(rows, max(mixer.d_inner, mixer.d_model)))

    def __call__(self, block: Block, **options: Any) -> MambaState:
        """x + mixer(norm(x)) into x; the options as `Mamba.mix` has them, whose state this returns."""
        from salience.ops.linear_rows.cpu_many import product

        norm, mixer, packed = block.norm, block.mixer, self.packed
        W_in, W_out = mixer.in_proj, mixer.out_proj
        product(self.x, W_in.weight, W_in.bias, y=self.xz, norm=norm.weight, eps=norm.eps, packed=packed)
        y, after = mixer.mix(self.xz.view(*self.shape, -1), **options)
        product(y.view(self.x.shape[0], -1), W_out.weight, W_out.bias, y=self.x, add=True, packed=packed)
        return after

    def logits(self, x: Tensor) -> Tensor:
        """(B, l, d_model), the last steps of x -> (B, l, rows)."""
        from salience.ops.linear_rows.cpu_many import product

        head, norm = self.model.lm_head, self.model.backbone.norm_f
        flat = x.reshape(-1, x.shape[-1])
        plain = is_plain(head) and _plain_norm(norm) and plain_tensors(flat, head.weight, head.bias)
        if not (plain and many_suit(len(flat), head.weight, head.bias)):
            return self.model._logits(x)
        return product(flat, head.weight, head.bias, norm=norm.weight, eps=norm.eps).view(*x.shape[:-1], -1)


def join(model: MambaLM, x: Tensor) -> Joined | None:
    """What runs the layers on x, fresh from the embedding; None where a kernel does not take it or somebody listens in.

    Everything must be float32 on the CPU and plain: no gradients, hooks, wrapped layers, compiling or tracing.
    """
    if x.dtype != torch.float32 or model.backend not in ("auto", "cpu") or torch.is_grad_enabled():
        return None
    rows = math.prod(x.shape[:-1])
    for block in model._blocks:
        mixer: Any = block.mixer
        plain = is_plain(mixer, Mamba) and _plain_norm(block.norm) and is_plain(mixer.in_proj)
        if not (plain and is_plain(mixer.out_proj) and mixer.backend == model.backend):
            return None
        for linear in (mixer.in_proj, mixer.out_proj):
            weight, bias = linear.weight, linear.bias
            if not (plain_tensors(x, weight, bias) and many_suit(rows, weight, bias)):
                return None
    embeddings = model.backbone.embeddings
    whole = is_plain(embeddings, nn.Embedding) and len(model._blocks) > 0 and x.is_contiguous()
    return Joined(model, x) if whole and pick("linear_rows", (x,), model.backend) == "cpu" else None


def _plain_norm(norm: Any) -> bool:
    from salience.ssm.models.mamba_lm import RMSNorm

    return is_plain(norm, RMSNorm) and plain_tensors(norm.weight, norm.weight, None) and _flat_float32(norm.weight)


def _flat_float32(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.is_contiguous()
