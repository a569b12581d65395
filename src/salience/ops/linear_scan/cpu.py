"""The CPU path of the linear scan: tensors in, parameter records for the kernels, tensors out. No autograd here."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.ops.linear_scan.cpu_kernels import backward_kernel, forward_kernel
from salience.ops.segment_codes import step_codes
from salience.ops.simd import Kernel, element_of, empty


def forward(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
            reverse: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x (B, L, planes, D) and the last state (B, planes, D). Shapes as `linear_scan_planes`'s, of one dtype, float32
    or float64; any strides."""
    x = _empty(b, mask)
    last = torch.empty(b.shape[0], *b.shape[2:], dtype=b.dtype)
    codes = step_codes(mask, seq_idx, reverse)
    _run(forward_kernel, a, b, initial_state, x, codes, reverse, last.data_ptr())
    return x, last


def backward(dx: Tensor, dstate: Tensor | None, x: Tensor, a: Tensor, initial_state: Tensor | None,
             mask: Tensor | None, seq_idx: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of a, b and the initial state; x is what `forward` gave."""
    varying = a.dim() == 4
    db = _empty(x, mask)
    dinitial = torch.empty(x.shape[0], *x.shape[2:], dtype=x.dtype)
    da = _empty(x, mask) if varying else torch.empty_like(dinitial)
    dlast = None if dstate is None else dstate.detach().contiguous()
    codes = step_codes(mask, seq_idx, reverse)
    fields = (0 if dlast is None else dlast.data_ptr(), da.data_ptr(), db.data_ptr(), dinitial.data_ptr())
    _run(backward_kernel, a, dx, initial_state, x, codes, reverse, *fields)
    return (da if varying else da.sum(0)), db, dinitial  # row after row, whatever the threads did


def _run(kernel: Kernel, a: Tensor, b: Tensor, initial_state: Tensor | None, x: Tensor,
         codes: Tensor | None, reverse: bool, *fields: int) -> None:  # fmt: skip
    """All tasks on the pool. b: of the forward pass, or the gradient of x."""
    a, b = _side_by_side(a), _side_by_side(b)
    initial = None if initial_state is None else initial_state.detach().contiguous()
    batch, length, planes, width = b.shape
    element, size = element_of(b.dtype), b.element_size()
    a_steps = [stride * size for stride in (a.stride() if a.dim() == 4 else (0, 0, *a.stride()))]
    common = (
        a.data_ptr(), *a_steps[:3], b.data_ptr(), *(stride * size for stride in b.stride()[:3]),
        0 if initial is None else initial.data_ptr(), x.data_ptr(), 0 if codes is None else codes.data_ptr(),
        length, width, planes, -(-width // element.lanes), int(a.dim() == 4), int(reverse),
    )  # fmt: skip
    kernel.job((element,), batch * -(-width // element.lanes), (*common, *fields)).run()


def _side_by_side(x: Tensor) -> Tensor:
    """Channels next to each other in memory; other strides stay."""
    x = x.detach()
    return x if x.stride(-1) == 1 else x.contiguous()


def _empty(like: Tensor, mask: Tensor | None) -> Tensor:
    """As `like`, contiguous, to be filled by a kernel: zeros where there are masked steps, which it does not touch."""
    made = empty(*like.shape, dtype=like.dtype)
    return made if mask is None else made.zero_()
