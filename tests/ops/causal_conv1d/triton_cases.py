"""The Triton kernels of the convolution beside the reference in float64. Run as a script: one JSON line of errors.

A script, since Triton's interpreter must be switched on before triton is imported:
TRITON_INTERPRET=1 python triton_cases.py
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor

#: What each case changes of DEFAULT. The interpreter takes a tenth of a second for every program: cases are small, and
#: the first has several rows and blocks of channels.
CASES: dict[str, dict[str, Any]] = {
    "two rows, two blocks of channels": {"batch": 2, "channels": 5},
    "no silu, no bias, no states": {"silu": False, "bias": False, "initial": False, "dstate": False},
    "shorter than its window": {"length": 2, "width": 8},
    "one step": {"length": 1, "width": 2},
    "two parts of a row": {"length": 70},
    "mask": {"mask": True},
    "sequences": {"sequences": True},
    "mask, sequences": {"mask": True, "sequences": True, "length": 30, "batch": 2},
    "mask, sequences, reverse": {"mask": True, "sequences": True, "reverse": True, "width": 3},
    "nothing valid": {"mask": True, "none": True, "sequences": True},
    "reverse": {"reverse": True},
    "strided": {"strided": True},
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
}
DEFAULT: dict[str, Any] = {
    "batch": 1, "length": 13, "channels": 3, "width": 4, "dtype": torch.float64, "bias": True, "initial": True,
    "silu": True, "mask": False, "none": False, "sequences": False, "reverse": False, "dstate": True,
    "strided": False, "device": "cpu",
}  # fmt: skip


def errors(changed: dict[str, Any]) -> dict[str, float]:
    """For each output and gradient: the largest error over the largest value wanted (1e9 for what isn't finite)."""
    from salience.ops.causal_conv1d import reference, triton
    from salience.ops.causal_conv1d.checks import ConvInputs

    o = DEFAULT | changed
    g = torch.Generator().manual_seed(0)
    batch, length, channels, width = o["batch"], o["length"], o["channels"], o["width"]

    def normal(*shape: int) -> Tensor:
        wide = torch.randn(*shape, 2 if o["strided"] else 1, generator=g)
        return wide.to(o["device"]).to(o["dtype"])[..., 0]

    x, weight = normal(batch, length, channels), normal(channels, width)
    bias = normal(channels) if o["bias"] else None
    initial = normal(batch, width - 1, channels) if o["initial"] else None
    mask = (torch.rand(batch, length, generator=g) > (2 if o["none"] else 0.3)).to(o["device"]) if o["mask"] else None
    ids = (torch.rand(batch, length, generator=g) > 0.7).long().cumsum(1).to(o["device"]) if o["sequences"] else None
    given = (x, weight, bias, initial)
    exact = [None if t is None else t.double().clone().requires_grad_() for t in given]
    how = (mask, ids, o["silu"], o["reverse"])
    wanted_y, wanted_state = reference.forward(ConvInputs(*exact, *how))
    dy, dstate = normal(*wanted_y.shape), normal(*wanted_state.shape) if o["dstate"] else None
    loss = (wanted_y * dy).sum() + (0 if dstate is None else (wanted_state * dstate).sum())
    there = [t for t in exact if t is not None]
    wanted = iter(torch.autograd.grad(loss, there, materialize_grads=True))
    if mask is not None:  # what is masked must not leak
        x[~mask] = dy[~mask] = float("nan")

    y, state = triton.forward(ConvInputs(*given, *how))
    got = triton.backward(dy, dstate, ConvInputs(*given, *how))
    found = {"y": error(y, wanted_y), "state": error(state, wanted_state)}
    for name, tensor, gradient in zip(("dx", "dweight", "dbias", "dinitial"), given, got, strict=True):
        assert (gradient is None) == (tensor is None)
        if tensor is not None:
            assert gradient.dtype == tensor.dtype and gradient.shape == tensor.shape
            found[name] = error(gradient, next(wanted))

    window, new = normal(batch, width - 1, channels), normal(batch, channels)
    moved = window.double().clone()
    out = reference.step(moved, new.double(), *exact[1:3], o["silu"])
    found["step y"] = error(triton.step(window, new, weight, bias, o["silu"]), out)
    return found | {"step state": error(window, moved)}


def error(got: Tensor, wanted: Tensor) -> float:
    if not got.isfinite().all():
        return 1e9
    return float((got.double() - wanted.detach()).abs().max() / wanted.detach().abs().max().clamp_min(1e-30))


def main() -> None:
    torch.use_deterministic_algorithms(True)  # fills what `empty` gives with NaN
    sys.stdout.write(json.dumps({name: errors(case) for name, case in CASES.items()}) + "\n")


if __name__ == "__main__":
    main()
