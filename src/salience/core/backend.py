"""Selection of device and backend: the meaning of "auto" for models and for each call of an operator.

The only module that reads the devices and the environment variables of the backends.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from salience.core.release_bounds import ReleaseBounds

BACKENDS = ("reference", "cpu", "triton")
FASTEST = ("cpu", "triton")  # "auto" takes the first that can run; each device has one

#: Tested releases of numba, whose private API compiles the CPU kernels (`ops/simd`).
NUMBA = ReleaseBounds(
    package="numba",
    oldest=(0, 61),
    newest=(0, 68),
    risk="the CPU kernels use its private API",
)

EXPERIMENTAL = {"triton": "experimental: no run on a GPU is recorded"}

#: operator -> the package that holds its backends, one module each
OPS = {
    "selective_scan": "salience.ops.selective_scan",
    "selective_scan_step": "salience.ops.selective_scan",
    "causal_conv1d": "salience.ops.causal_conv1d",
    "causal_conv1d_step": "salience.ops.causal_conv1d",
    "linear_scan": "salience.ops.linear_scan",
    "linear_rows": "salience.ops.linear_rows",
    "farthest_first": "salience.ops.farthest_first",
    "mamba_step": "salience.ops.mamba_step",
}

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
COMPLEX = {"linear_scan": (torch.complex64, torch.complex128)}  # operators whose kernels take these too

PLAIN = frozenset((Tensor, Parameter, type(None)))  # classes whose memory is where they say

Kinds = tuple[tuple[str, torch.dtype], ...]  # (device type, dtype) of each tensor


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The backend of one call, the reason for it, and for each other backend the reason against it."""

    op: str
    backend: str
    why: str
    others: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        label = f" ({EXPERIMENTAL[self.backend]})" if self.backend in EXPERIMENTAL else ""
        lines = [f"{self.op} takes the backend {self.backend!r}{label}: {self.why}."]
        return "\n".join(lines + [f"Not {name!r}: {why}." for name, why in self.others.items()])


def explain(op: str, *tensors: Tensor | None, backend: str = "auto") -> Choice:
    """Return the backend that a call of `op` with these tensors takes, and why; print it to read it.

    The backend "triton" is experimental: it is compiled and tested, but no run on a GPU is recorded.

    Args:    op: a key of `OPS`   tensors: the call's tensors, None for absent ones; the first one gives the device
             backend: the call's `backend`; the variable SALIENCE_BACKEND replaces "auto"
    Raises:  as the call would: ValueError for an unknown operator or backend, or when no tensor is given;
             RuntimeError when the backend asked for cannot run, or numba's release was not tested
    """
    return _choose(op, *_named(backend), _kinds(tensors))


def pick(op: str, tensors: Sequence[Tensor | None], backend: str = "auto") -> str:
    """Name of the backend that `explain` returns; a constant of the graph inside torch.compile."""
    if torch.compiler.is_compiling():
        constant: str = _constant(op, backend, _kinds(tensors))
        return constant
    return explain(op, *tensors, backend=backend).backend


def eager(*tensors: Tensor | None) -> bool:
    """Whether a call with these tensors may use a kernel directly: no compiling, tracing, transform or dispatch mode.

    A tensor of another class (fake, quantised, distributed) may have no memory at the address that a kernel reads.
    """
    return PLAIN.issuperset(map(type, tensors)) and not (
        torch.compiler.is_compiling() or transformed() or torch._C._len_torch_dispatch_stack() or torch._C._is_tracing()
    )


def exporting() -> bool:
    """Whether torch.export traces. Lengths must stay symbolic then: no branch or table may depend on one."""
    return torch.compiler.is_compiling() and torch.compiler.is_exporting()


def free(length: int) -> bool:
    """Whether this length stays symbolic in an exported program."""
    return exporting() and not isinstance(length, int)


def transformed() -> bool:
    """Whether torch.func transforms this call (grad, vmap, jvp ...) or forward-mode derivatives are taken.

    A kernel has no rule for either, and its tangent would silently be zero: use the plain PyTorch form then.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def refuse_tangents() -> None:
    """Raise RuntimeError where forward-mode derivatives are taken. For operators in a traced graph.

    torch gives their outputs no tangent, and hides whether their inputs have one.
    """
    if forward_ad._current_level >= 0:
        raise RuntimeError(
            "a traced, exported or compiled graph has no forward-mode derivatives of salience's operators: take them "
            "of the model itself, or trace the derivative."
        )


def batched(*gradients: Tensor | None) -> bool:
    """Whether gradients come from `torch.autograd.grad(is_grads_batched=True)`, without memory for a kernel."""
    return not all(x is None or torch._C._has_storage(x) for x in gradients)


def _constant(op: str, backend: str, kinds: Kinds) -> str:
    return _choose(op, *_named(backend), kinds).backend


# Same effect as torch.compiler.assume_constant_result, which would load torch._dynamo first (1.9 s, and triton).
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _kinds(tensors: Sequence[Tensor | None]) -> Kinds:
    return tuple([(x.device.type, x.dtype) for x in tensors if x is not None])


def _named(backend: str) -> tuple[str, str, bool]:
    """The backend asked for, the setting that asks for it, and whether Triton's interpreter is on."""
    name, source = backend, "backend"
    if name == "auto":
        name, source = os.environ.get("SALIENCE_BACKEND") or "auto", "SALIENCE_BACKEND"
    # Only an explicit "triton" reads the switch: reading the environment is the slowest part.
    return name, source, name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache(maxsize=256)
def _choose(op: str, name: str, source: str, interpreted: bool, kinds: Kinds) -> Choice:
    if op not in OPS:
        raise ValueError(f"op must be one of {', '.join(map(repr, OPS))}, not {op!r}.")
    if name not in ("auto", *BACKENDS):
        raise ValueError(f"{source} must be 'auto', {', '.join(map(repr, BACKENDS))}, not {name!r}.")
    if not kinds:
        raise ValueError(f"{op} needs at least one tensor to tell the device.")
    missing = {each: _missing(op, each, interpreted, kinds) for each in FASTEST}
    if name in missing and missing[name] is not None:
        raise RuntimeError(f"the backend {name!r} cannot run {op} here: {missing[name]}.")
    asked, why = name != "auto", f"{source} asks for it"
    if not asked:
        name = next((each for each in FASTEST if missing[each] is None), "reference")
        why = f"the fastest for tensors on {kinds[0][0]}" if name in FASTEST else "no kernel takes these tensors"
    if name == "cpu" and (refusal := NUMBA.refusal(importlib.metadata.version("numba"))) is not None:
        raise RuntimeError(refusal)
    others = {each: reason or "another was asked for" for each, reason in missing.items() if each != name}
    if not asked and name in FASTEST:
        others["reference"] = "a plain loop, for comparison and for what no kernel takes"
    return Choice(op=op, backend=name, why=why, others=others)


def _missing(op: str, backend: str, interpreted: bool, kinds: Kinds) -> str | None:
    """Reason why a fused backend cannot run this call, or None."""
    devices = {device for device, _ in kinds}
    wanted, package = ("cpu", "numba") if backend == "cpu" or interpreted else ("cuda", "triton")
    if devices != {wanted}:
        given = " and ".join(sorted(devices))
        return f"it is for tensors on {wanted}, and these are on {given}"
    known = FLOATS + COMPLEX.get(op, ())
    strange = sorted({str(dtype) for _, dtype in kinds if dtype not in known})
    if strange:
        return f"it takes {', '.join(str(dtype).removeprefix('torch.') for dtype in known)}, not {strange[0]}"
    package = "triton" if backend == "triton" else package
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed (pip install {package})"
    if importlib.util.find_spec(f"{OPS[op]}.{backend}") is None:
        return f"{op} has no {backend} kernel"
    return None


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device to run on.

    Args:    name: "auto" (CUDA where there is one, else Apple's MPS, else the CPU), or as torch: "cpu", "cuda:1"
    Raises:  ValueError when torch does not know the name or the machine has no such device
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', 'cuda:<n>' or 'mps', not {name!r}.") from None
    found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= found.get(device.type, math.inf):
        raise ValueError(f"device {str(name)!r} is not on this machine; 'auto' takes what there is.")
    return device
