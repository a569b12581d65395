"""CPU path of the linear scan: it packs tensors into parameter records and runs the kernels. No autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.ops.kernel_arguments import address, contiguous, output_like, rows_contiguous
from salience.ops.linear_scan.cpu_kernels import backward_kernel, forward_kernel
from salience.ops.segment_codes import step_codes
from salience.ops.simd.element import element_of
from salience.ops.simd.kernel import Kernel


def forward(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
            reverse: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x (B, L, planes, D) and the last state (B, planes, D). Shapes as `linear_scan_planes`'s, of one dtype, float32
    or float64; any strides."""
    x = output_like(b, mask)
    last = torch.empty(b.shape[0], *b.shape[2:], dtype=b.dtype)
    codes = step_codes(mask, seq_idx, reverse)
    _run(forward_kernel, a, b, initial_state, x, codes, reverse, last.data_ptr())
    return x, last


def backward(dx: Tensor, dstate: Tensor | None, x: Tensor, a: Tensor, initial_state: Tensor | None,
             mask: Tensor | None, seq_idx: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of a, b and the initial state; x is the output of `forward`."""
    varying = a.dim() == 4
    db = output_like(x, mask)
    dinitial = torch.empty(x.shape[0], *x.shape[2:], dtype=x.dtype)
    da = output_like(x, mask) if varying else torch.empty_like(dinitial)
    dlast = contiguous(dstate)
    codes = step_codes(mask, seq_idx, reverse)
    fields = (address(dlast), da.data_ptr(), db.data_ptr(), dinitial.data_ptr())
    _run(backward_kernel, a, dx, initial_state, x, codes, reverse, *fields)
    return (da if varying else da.sum(0)), db, dinitial  # row after row, whatever the threads did


def _run(kernel: Kernel, a: Tensor, b: Tensor, initial_state: Tensor | None, x: Tensor,
         codes: Tensor | None, reverse: bool, *fields: int) -> None:  # fmt: skip
    """Run all tasks. b: the input in the forward pass, the gradient of x in the backward pass."""
    a, b = rows_contiguous(a), rows_contiguous(b)
    initial = contiguous(initial_state)
    batch, length, planes, width = b.shape
    element, size = element_of(b.dtype), b.element_size()
    a_steps = [stride * size for stride in (a.stride() if a.dim() == 4 else (0, 0, *a.stride()))]
    common = (
        a.data_ptr(), *a_steps[:3], b.data_ptr(), *(stride * size for stride in b.stride()[:3]),
        address(initial), x.data_ptr(), address(codes),
        length, width, planes, -(-width // element.lanes), int(a.dim() == 4), int(reverse),
    )  # fmt: skip
    kernel.job((element,), batch * -(-width // element.lanes), (*common, *fields)).run()
