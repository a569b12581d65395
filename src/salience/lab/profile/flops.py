"""Floating point operations of a call: 2 per multiply-add, attention as the full square, every layer that runs.

They are counted from the operators that run (torch's FlopCounterMode), so no formula depends on the model. On `meta`
tensors nothing is computed and the count is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    """2 B H S T (d + d_v): both products as the full square, whatever a mask leaves out.

    query (B, H, S, d), key (B, H_kv, T, d), value (B, H_kv, T, d_v); grouped heads cost as many as the query's.
    """
    batch, heads, rows, width = query.shape
    return int(2 * batch * heads * rows * key.shape[-2] * (width + value.shape[-1]))


# torch's table lacks the CPU's fused kernel, so attention on a CPU would count as zero. Under inference_mode the
# composite operator arrives instead; FlopCounterMode counts one of the two, never both.
_attention_flops._get_raw = True  # type: ignore[attr-defined]
MAPPING = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.scaled_dot_product_attention: _attention_flops,
}


def count_flops(call: Callable[..., object], *args: Any, **kwargs: Any) -> int:
    """Floating point operations of one `call(*args, **kwargs)` without gradients.

    Matrix products, convolutions and attention count; element-wise work does not (under 1 % in a transformer).
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=MAPPING) as counter:
        call(*args, **kwargs)
    return int(counter.get_total_flops())
