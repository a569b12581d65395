"""CPU path of the causal convolution: it packs tensors into parameter records and runs the kernels. No autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.ops.causal_conv1d.checks import ConvInputs
from salience.ops.causal_conv1d.cpu_kernels import BLOCK, backward_kernel, forward_kernel
from salience.ops.causal_conv1d.cpu_step import step_kernel
from salience.ops.kernel_arguments import address, compute_dtype, contiguous, output_like, place
from salience.ops.segment_codes import step_codes
from salience.ops.simd.element import element_of
from salience.ops.simd.kernel import Kernel

TASK_STEPS = 512  # in a task: several short rows of the batch share one
STEP_ELEMENTS = 65536  # least outputs of a task in a decoding step: for fewer, a second thread costs more


class ConvCall:
    """Arguments of forward and backward as kernels take them. It keeps alive the tensors whose addresses it gives."""

    def __init__(self, given: ConvInputs) -> None:
        x, weight, bias, initial_state, mask, seq_idx, silu, reverse = given
        self.x = x.detach()
        self.compute = compute_dtype(x.dtype)
        self.weight = weight.detach().to(self.compute)
        self.bias, self.initial = contiguous(bias, self.compute), contiguous(initial_state, x.dtype)
        self.codes = step_codes(mask, seq_idx, reverse)
        self.batch, self.length, self.channels = x.shape
        self.width = weight.shape[1]
        self.blocks = -(-self.channels // BLOCK)
        self.rows = max(1, min(self.batch, TASK_STEPS // self.length))  # of the batch, in a task
        self.parts = -(-self.batch // self.rows)
        self.flags = (int(silu), int(reverse))

    def common(self) -> tuple[int, ...]:
        """The fields of COMMON."""
        fields = (*place(self.x), *place(self.weight), address(self.bias), address(self.initial))
        fields = (*fields, address(self.codes), self.length, self.channels, self.width, self.blocks)
        return (*fields, self.batch, self.rows, *self.flags)

    def state(self) -> Tensor:
        """(B, W - 1, D) to be filled by a kernel."""
        return torch.empty(self.batch, self.width - 1, self.channels, dtype=self.x.dtype)

    def run(self, kernel: Kernel, *fields: int) -> None:
        """Run all tasks of a kernel."""
        tags = (element_of(self.x.dtype), element_of(self.compute))
        kernel.job(tags, self.parts * self.blocks, (*self.common(), *fields)).run()


def forward(given: ConvInputs) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, W - 1, D) in x.dtype. Shapes as `causal_conv1d`'s, any strides."""
    call = ConvCall(given)
    y, last = output_like(given.x, given.mask), call.state()
    call.run(forward_kernel, y.data_ptr(), last.data_ptr())
    return y, last


def backward(dy: Tensor, dstate: Tensor | None, given: ConvInputs) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight, bias and initial_state, each in its dtype; None for what is absent."""
    x, weight, bias, initial_state, mask, *_ = given
    call = ConvCall(given)
    dy = dy.detach().to(x.dtype)
    dstate = contiguous(dstate, x.dtype)
    dx, dinitial = output_like(x, mask), call.state()
    partial = torch.empty(call.parts, call.width + 1, call.channels, dtype=call.compute)
    call.run(backward_kernel, *place(dy), address(dstate), dx.data_ptr(), partial.data_ptr(),
             dinitial.data_ptr())  # fmt: skip
    # One task after the other, whatever the threads did; two sums, since they may not share memory.
    dweight = partial[:, :-1].sum(0).t().to(weight.dtype).contiguous()
    dbias = None if bias is None else partial[:, -1].sum(0).to(bias.dtype)
    return dx, dweight, dbias, None if initial_state is None else dinitial.to(initial_state.dtype)


def step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """y (B, D) in x.dtype; `state` is updated in place. Shapes as `causal_conv1d_step`'s, any strides."""
    if state.dtype != x.dtype:  # both in the wider type, and back
        wide = torch.promote_types(state.dtype, x.dtype)
        moved = state.to(wide, copy=True)
        y = step(moved, x.to(wide), weight, bias, silu).to(x.dtype)
        state.copy_(moved)
        return y
    compute = compute_dtype(x.dtype)
    if weight.dtype != compute:
        weight = weight.to(compute)
    if bias is not None and (bias.dtype != compute or bias.stride(0) != 1):
        bias = bias.to(compute).contiguous()
    batch, channels = x.shape
    y = torch.empty(batch, channels, dtype=x.dtype)
    tasks = max(1, min(batch, batch * channels // STEP_ELEMENTS))
    rows = -(-batch // tasks)
    fields = (*place(state), *place(x), *place(weight), address(bias), y.data_ptr(), batch, rows, channels,
              weight.shape[1], silu)  # fmt: skip
    tags = (element_of(x.dtype), element_of(compute))
    step_kernel.job(tags, tasks, fields).run()
    return y
