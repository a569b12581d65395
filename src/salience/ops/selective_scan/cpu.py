"""CPU path of the selective scan: it packs tensors into parameter records and runs the kernels. No autograd."""

from __future__ import annotations

from ctypes import addressof, c_int64
from functools import cache

import numpy as np
import torch
from torch import Tensor

from salience.ops.kernel_arguments import address, compute_dtype, contiguous, output_like, place
from salience.ops.segment_codes import step_codes
from salience.ops.selective_scan.checks import ScanInputs, check_sign, check_steps, sequence_dtype
from salience.ops.selective_scan.cpu_backward import backward_kernel, total_kernel
from salience.ops.selective_scan.cpu_forward import BLOCK, CHUNK, forward_kernel
from salience.ops.selective_scan.cpu_step import step_kernel
from salience.ops.simd.element import Element, element_of
from salience.ops.simd.kernel import Kernel
from salience.ops.simd.registers import native

STEP_UPDATES = 1 << 16  # state updates of a decoding step below which a second thread costs more than it saves


class ScanCall:
    """Arguments of forward and backward as kernels take them: inputs of one dtype, small ones in the compute dtype.

    It keeps alive the tensors whose addresses it gives.
    """

    def __init__(self, given: ScanInputs) -> None:
        u, dt, A, B, C, D, z, dt_bias, _, mask, seq_idx, dt_softplus, reverse = given
        dtypes = {u.dtype, dt.dtype, B.dtype, C.dtype, u.dtype if z is None else z.dtype}
        self.compute = sequence_dtype(given)
        self.dtype = dtype = u.dtype if len(dtypes) == 1 else self.compute
        self.u, self.dt, self.B, self.C = _as(u, dtype), _as(dt, dtype), _as(B, dtype), _as(C, dtype)
        self.z = None if z is None else _as(z, dtype)
        self.A = _as(A, self.compute)
        self.skip, self.bias = (contiguous(x, self.compute) for x in (D, dt_bias))
        self.codes = step_codes(mask, seq_idx, reverse)
        self.mask = mask
        self.batch, self.length, self.width = u.shape
        self.groups, self.states = 1 if B.dim() == 3 else B.shape[2], A.shape[1]
        self.padded = -(-self.states // 4) * 4
        self.channels = self.width // self.groups
        self.blocks = -(-self.channels // BLOCK)
        self.chunks = -(-self.length // CHUNK)
        self.tags = _tags(dtype, self.compute)
        self.flags = (int(dt_softplus), int(reverse))

    def common(self) -> tuple[int, ...]:
        """The fields of COMMON."""
        return (
            *place(self.u), *place(self.dt), *place(self.z, 3), *_matrix(self.B), *_matrix(self.C),
            address(self.codes), address(self.bias), address(self.skip), *place(self.A), self.batch, self.length,
            self.width, self.states, self.padded, self.groups, self.channels, self.blocks, self.chunks, *self.flags,
        )  # fmt: skip

    def output(self) -> Tensor:
        """(B, L, D), see `output_like`."""
        return output_like(self.u, self.mask, self.dtype)

    def run(self, kernel: Kernel, tasks: int, *fields: int) -> None:
        """Run all tasks of a kernel."""
        kernel.job(self.tags, tasks, (*self.common(), *fields)).run()


def forward(given: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D) in u.dtype, the last state (B, D, N), and what `backward` needs (empty unless `save`).

    Shapes as `selective_scan`'s, any strides. Inputs with stride 1 along D are read without a copy; otherwise each
    vector's rows are gathered, chunk by chunk. Mixed dtypes are computed on copies in float32. Raises ValueError for a
    positive A and a negative step, which the kernel finds.
    """
    call = ScanCall(given)
    y = call.output()
    last = torch.empty(call.batch, call.width, call.states, dtype=call.compute)
    tasks = call.batch * call.groups * call.blocks
    saved = torch.empty(tasks * call.chunks * BLOCK * call.padded if save else 0, dtype=call.compute)
    initial = contiguous(given.initial_state, call.compute)
    positive, negative = c_int64(), c_int64()
    made = (y.data_ptr(), last.data_ptr(), saved.data_ptr(), addressof(positive), addressof(negative))
    call.run(forward_kernel, tasks, address(initial), *made)
    if positive.value:
        check_sign(given.A)
    if negative.value:
        check_steps(given.dt, given.dt_bias, given.mask)
    return _as(y, given.u.dtype), last, saved


def backward(dy: Tensor, dstate: Tensor | None, saved: Tensor, given: ScanInputs) -> tuple[Tensor | None, ...]:
    """The gradients of u, dt, A, B, C, D, z, dt_bias and initial_state, each in its dtype; None for what is absent."""
    u, dt, A, B, C, D, z, dt_bias, initial_state, mask, *_ = given
    call = ScanCall(given)
    dy, dlast = _as(dy, call.dtype), contiguous(dstate, call.compute)
    batch, width, groups, blocks = call.batch, call.width, call.groups, call.blocks
    tasks = batch * groups * blocks
    du, ddt, dz = call.output(), call.output(), call.output() if z is not None else None
    partial = torch.empty(2, batch, groups, blocks, call.length, call.padded, dtype=call.compute)  # of dB and dC
    if mask is not None:
        partial.zero_()
    dA, dh0 = (torch.empty(batch, width, call.states, dtype=call.compute) for _ in range(2))
    dD, dbias = (torch.empty(batch, width, dtype=call.compute) for _ in range(2))
    made = (du.data_ptr(), ddt.data_ptr(), address(dz), dA.data_ptr(), partial.data_ptr(), dD.data_ptr())
    read = (saved.data_ptr(), *place(dy), address(dlast))
    call.run(backward_kernel, tasks, *read, *made, dbias.data_ptr(), dh0.data_ptr())
    dB, dC = (torch.empty(x.shape, dtype=call.compute) for x in (B, C))
    fields = (partial.data_ptr(), dB.data_ptr(), dC.data_ptr(), batch, groups, blocks)
    total_kernel.job(call.tags[1:], 2 * batch * groups, (*fields, call.length, call.states, call.padded)).run()

    def over_rows(partial: Tensor, like: Tensor | None) -> Tensor | None:
        if like is None:
            return None
        total = partial[0] if batch == 1 else torch.from_numpy(np.add.reduce(partial.numpy(), axis=0))
        return _as(total, like.dtype)

    return (
        _as(du, u.dtype), _as(ddt, dt.dtype), over_rows(dA, A), _as(dB, B.dtype), _as(dC, C.dtype),
        over_rows(dD, D), dz if dz is None or z is None else _as(dz, z.dtype), over_rows(dbias, dt_bias),
        None if initial_state is None else _as(dh0, initial_state.dtype),
    )  # fmt: skip


def step(state: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
         dt_bias: Tensor | None, dt_softplus: bool) -> Tensor:  # fmt: skip
    """y (B, D) in u.dtype of one more step; `state` (B, D, N) is updated in place. B, C: (B, G, N); any strides."""
    batch, width = u.shape
    states, dtype = A.shape[1], u.dtype
    if dt.dtype != dtype or (z is not None and z.dtype != dtype):
        dtype = compute_dtype(state.dtype)
    x, dt, z = _as(u, dtype), _as(dt, dtype), z if z is None else _as(z, dtype)
    compute = compute_dtype(dtype)
    moved = state if state.dtype == compute and state.stride(2) == 1 else state.to(compute, copy=True).contiguous()
    A, B, C = (_rows(x, compute) for x in (A, B, C))
    D, dt_bias = (x if x is None else _rows(x, compute) for x in (D, dt_bias))
    y = torch.empty(batch, width, dtype=dtype)
    parts = max(1, width * states // STEP_UPDATES)
    span = -(-width // parts // 16) * 16
    c = A.element_size()
    fields = (
        moved.data_ptr(), moved.stride(0) * c, moved.stride(1) * c, *place(x), *place(dt), *place(z, 2),
        A.data_ptr(), A.stride(0) * c, B.data_ptr(), B.stride(0) * c, B.stride(1) * c, C.data_ptr(), C.stride(0) * c,
        C.stride(1) * c, address(D), address(dt_bias), y.data_ptr(), width, states, width // B.shape[1], span, parts,
        dt_softplus,
    )  # fmt: skip
    tags = (element_of(dtype), element_of(compute))
    threads = 1 if batch * width * states <= STEP_UPDATES else None
    step_kernel.job(tags, batch * parts, fields).run(threads)
    if moved is not state:
        state.copy_(moved)
    return _as(y, u.dtype)


def _rows(x: Tensor, compute: torch.dtype) -> Tensor:
    """x in the compute dtype, its last axis contiguous."""
    x = x if x.dtype == compute else x.to(compute)
    return x if x.stride(-1) == 1 else x.contiguous()


def _matrix(x: Tensor) -> tuple[int, ...]:
    """`place` of B or C; the stride of the groups is 0 if there is no such axis."""
    at, *strides = place(x)
    return (at, *strides) if len(strides) == 4 else (at, *strides[:2], 0, strides[2])


def saved_shape(batch: int, length: int, channels: int, groups: int, states: int) -> tuple[int, ...]:
    """Shape of the checkpoints: tasks, chunks, channels of a task and padded states, in one axis.

    An axis of chunks would tie an exported program to one chunk, or to several, whichever its example had.
    """
    blocks = -(-(channels // groups) // BLOCK)
    return (batch * groups * blocks * -(-length // CHUNK) * BLOCK * -(-states // 4) * 4,)


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.to(dtype)`, which takes four microseconds even if nothing changes."""
    return x if x.dtype == dtype else x.to(dtype)


@cache
def _tags(dtype: torch.dtype, compute: torch.dtype) -> tuple[Element, Element]:
    """The kernels' element types for sequences of `dtype`."""
    return native(element_of(dtype)), native(element_of(compute))
