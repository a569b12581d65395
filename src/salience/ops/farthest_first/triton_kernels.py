"""The kernel for a GPU: a program has one row of the batch in its registers for all its steps."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("n", "count"))
def steps_kernel(distance, nearest, chosen, n, count, BN: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BN)
    on = j < n
    first = tl.load(nearest + row * n + j, mask=on, other=float("-inf"))
    pick = tl.argmax(first, axis=0)  # ties go to the earlier
    near = tl.where(on, float("inf"), float("-inf"))
    for step in range(count):
        tl.store(chosen + row * count + step, pick.to(tl.int64))
        far = tl.load(distance + (row * n + pick) * n + j, mask=on, other=float("-inf"))
        near = tl.where(j == pick, float("-inf"), tl.minimum(near, far))
        pick = tl.argmax(near, axis=0)
