"""The CPU path of the selective scan: tensors in, parameter records for the kernels, tensors out. No autograd here."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from salience.ops.selective_scan.cpu_forward import FORWARD, forward_kernel
from salience.ops.selective_scan.cpu_tiles import BLOCK, CHUNK
from salience.ops.simd import F32, F64, Element, compute_dtype, element_of, parallel_for
from salience.ops.steps import step_codes


class _Call:
    """What forward and backward have in common: inputs of one dtype, small ones in the compute dtype, and their record.

    Tensors whose addresses the record holds stay alive with it.
    """

    def __init__(self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
                 dt_bias: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None, dt_softplus: bool,
                 reverse: bool) -> None:  # fmt: skip
        big = [u, dt, B, C] if z is None else [u, dt, B, C, z]
        same = all(x.dtype == u.dtype for x in big)
        self.compute = torch.float64 if any(x.dtype == torch.float64 for x in big) else compute_dtype(u.dtype)
        self.dtype = u.dtype if same else self.compute
        self.u, self.dt, self.B, self.C = (x.detach().to(self.dtype) for x in big[:4])
        self.z = None if z is None else z.detach().to(self.dtype)
        self.A = A.detach().to(self.compute)
        self.skip, self.bias = self.small(D), self.small(dt_bias)
        self.codes = step_codes(mask, seq_idx, reverse)
        self.masked = mask is not None
        self.batch, self.length, self.width = u.shape
        self.groups, self.states = B.shape[2], A.shape[1]
        self.padded = -(-self.states // 4) * 4
        self.channels = self.width // self.groups
        self.blocks = -(-self.channels // BLOCK)
        self.chunks = -(-self.length // CHUNK)
        self.tags: tuple[Element, Element] = (element_of(self.dtype), F64 if self.compute == torch.float64 else F32)
        self.flags = (int(dt_softplus), int(reverse))

    def small(self, x: Tensor | None) -> Tensor | None:
        """Contiguous, in the compute dtype."""
        return None if x is None else x.detach().to(self.compute).contiguous()

    def common(self) -> tuple[int, ...]:
        """The fields of COMMON."""
        A = self.A
        s = A.element_size()
        fields = [*_place(self.u), *_place(self.dt), *_place(self.z, 3), *_place(self.B), *_place(self.C)]
        fields += [_address(self.codes), _address(self.bias), _address(self.skip), A.data_ptr()]
        fields += [A.stride(0) * s, A.stride(1) * s, self.batch, self.length, self.width, self.states, self.padded]
        return (*fields, self.groups, self.channels, self.blocks, self.chunks, *self.flags)

    def empty(self) -> Tensor:
        """(B, L, D) to be filled by a kernel: zeros where there are masked steps, which it does not touch."""
        make = torch.zeros if self.masked else torch.empty
        return make(self.batch, self.length, self.width, dtype=self.dtype)

    def run(self, kernel: Any, record: np.dtype[Any], tasks: int, *fields: int) -> None:
        """All tasks of a kernel on the pool."""
        params = np.array([(*self.common(), *fields)], record)
        parallel_for(kernel.compiled(*self.tags), tasks, *self.tags, params)


def forward(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
            dt_bias: Tensor | None, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
            dt_softplus: bool, reverse: bool, save: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y (B, L, D) in u.dtype, the last state (B, D, N), and what `backward` needs (empty unless `save`).

    Shapes as `selective_scan`'s, B and C (B, L, G, N); any strides. Where the stride along D is 1 the inputs are read
    where they lie; otherwise each vector's rows are gathered, chunk by chunk. Mixed dtypes are computed on copies
    in float32.
    """
    call = _Call(u, dt, A, B, C, D, z, dt_bias, mask, seq_idx, dt_softplus, reverse)
    y = call.empty()
    last = torch.empty(call.batch, call.width, call.states, dtype=call.compute)
    tasks = call.batch * call.groups * call.blocks
    saved = torch.empty((tasks, call.chunks, BLOCK, call.padded) if save else 0, dtype=call.compute)
    initial = call.small(initial_state)
    call.run(forward_kernel, FORWARD, tasks, _address(initial), y.data_ptr(), last.data_ptr(), saved.data_ptr())
    return y.to(u.dtype), last, saved


def saved_shape(batch: int, length: int, channels: int, groups: int, states: int) -> tuple[int, ...]:
    """Of the checkpoints: (tasks, chunks, channels of a task, states filled up)."""
    blocks = -(-(channels // groups) // BLOCK)
    return batch * groups * blocks, -(-length // CHUNK), BLOCK, -(-states // 4) * 4


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _place(x: Tensor | None, dims: int = 0) -> tuple[int, ...]:
    """Address and byte strides; zeros for an absent one."""
    if x is None:
        return (0,) * (dims + 1)
    s = x.element_size()
    return (x.data_ptr(), *(stride * s for stride in x.stride()))
