"""The Triton kernels beside the recurrence from its definition. Run as a script: one JSON line of errors.

A script, since Triton's interpreter must be switched on before triton is imported:
TRITON_INTERPRET=1 python -m linear_scan.triton_cases
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from .cases import error, random_call

#: What each case changes of a small call.
CASES: dict[str, dict[str, Any]] = {
    "complex": {"dtype": torch.complex128},
    "real": {"dtype": torch.float64, "width": 6},
    "one step, no initial state": {"dtype": torch.complex128, "length": 1, "initial": False},
    "factors of every step": {"dtype": torch.complex128, "varying": True, "halves": True},
    "mask, real": {"dtype": torch.float64, "mask": True},
    "mask, factors of every step": {"dtype": torch.complex128, "mask": True, "varying": True},
    "mask, packed": {"dtype": torch.complex128, "mask": True, "packed": True},
    "all of it backwards": {"dtype": torch.complex128, "mask": True, "packed": True, "reverse": True, "varying": True},
    "reverse, real": {"dtype": torch.float64, "reverse": True},
    "float32": {"dtype": torch.float32, "packed": True},
    "complex64": {"dtype": torch.complex64, "mask": True},
}
SMALL: dict[str, Any] = {"length": 6, "width": 5}


def errors(changed: dict[str, Any], *, device: str = "cpu", dstate: bool = True) -> dict[str, float]:
    """For each output and gradient the largest error over the largest value; what is masked is NaN."""
    call = random_call(**(SMALL | changed))
    want = call.double().everything("loop", dstate=dstate)
    if call.mask is not None:
        gone = ~call.mask[..., None]
        a = call.a.masked_fill(gone, float("nan")) if call.a.dim() == 3 else call.a
        call = replace(call, a=a, b=call.b.masked_fill(gone, float("nan")))
    moved = {name: x.to(device) for name, x in vars(call).items() if isinstance(x, torch.Tensor)}
    found = replace(call, **moved).everything("triton", dstate=dstate)
    return {name: error(x.cpu(), want[name]) for name, x in found.items()}


def main() -> None:
    found = {name: errors(case) for name, case in CASES.items()}
    found["no gradient of the state"] = errors({"dtype": torch.complex128}, dstate=False)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
