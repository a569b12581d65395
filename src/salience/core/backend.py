"""The only reader of the device and of the environment: what "auto" means, for models and for each operator's call."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

BACKENDS = ("reference", "cpu", "triton")
FASTEST = ("cpu", "triton")  # "auto" takes the first that can run; each device has one

#: operator -> the package that holds its backends, a module each
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
    """Which backend a call takes, why, and for each other one why not."""

    op: str
    backend: str
    why: str
    others: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.op} takes the backend {self.backend!r}: {self.why}."]
        return "\n".join(lines + [f"Not {name!r}: {why}." for name, why in self.others.items()])


def explain(op: str, *tensors: Tensor | None, backend: str = "auto") -> Choice:
    """Which backend a call of `op` with these tensors takes, and why; print it to read it.

    Args:    op: "selective_scan", "selective_scan_step", "causal_conv1d", "causal_conv1d_step" ...
             tensors: what the call would get, the first telling the device   backend: as the call would get it
    Raises:  as the call would: ValueError for a name nobody knows, RuntimeError when a backend asked for cannot run
    """
    return choose(op, tensors, backend)


def choose(op: str, tensors: Sequence[Tensor | None], backend: str = "auto") -> Choice:
    """The backend for a call of `op`: the one named by `backend`, or by SALIENCE_BACKEND where that is "auto".

    Args:    tensors: those that decide, the first telling the device; None for absent ones
    Raises:  ValueError for an operator or a backend that nobody knows, or when no tensor is given
             RuntimeError when the backend named cannot run, saying what is missing
    """
    return _choose(op, *_named(backend), _kinds(tensors))


def pick(op: str, tensors: Sequence[Tensor | None], backend: str = "auto") -> str:
    """The name of the backend that `choose` takes; inside torch.compile it becomes a constant of the graph."""
    if torch.compiler.is_compiling():
        constant: str = _constant(op, backend, _kinds(tensors))
        return constant
    return choose(op, tensors, backend).backend


def eager(*tensors: Tensor | None) -> bool:
    """Whether a call with these may go straight to a kernel: nothing compiles, traces, transforms or listens in.

    A tensor of another class (fake, quantised, distributed) may have no memory at the address that a kernel reads.
    """
    return PLAIN.issuperset(map(type, tensors)) and not (
        torch.compiler.is_compiling() or transformed() or torch._C._len_torch_dispatch_stack() or torch._C._is_tracing()
    )


def exporting() -> bool:
    """Whether torch.export traces, for which a length is to stay free: no branch or table may depend on it."""
    return torch.compiler.is_compiling() and torch.compiler.is_exporting()


def free(length: int) -> bool:
    """Whether this is a length of an exported program that stays free: no number yet."""
    return exporting() and not isinstance(length, int)


def transformed() -> bool:
    """Whether torch.func transforms this call (grad, vmap, jvp ..) or forward-mode derivatives are taken.

    A kernel has no rule for either: its tangent would be zero and nobody would be told. The plain PyTorch form, which
    has every rule, is to be taken.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def refuse_tangents() -> None:
    """RuntimeError where forward-mode derivatives are taken: called by operators, which a traced graph holds.

    torch gives their outputs no tangent, and hides from them whether their inputs have one.
    """
    if forward_ad._current_level >= 0:
        raise RuntimeError(
            "a traced, exported or compiled graph has no forward-mode derivatives of salience's operators: take them "
            "of the model itself, or trace the derivative."
        )


def batched(*gradients: Tensor | None) -> bool:
    """Whether these come from `torch.autograd.grad(is_grads_batched=True)`: no memory of their own for a kernel."""
    return not all(x is None or torch._C._has_storage(x) for x in gradients)


def _constant(op: str, backend: str, kinds: Kinds) -> str:
    return _choose(op, *_named(backend), kinds).backend


# All that torch.compiler.assume_constant_result does, which first loads torch._dynamo (1.9 s, and triton with it).
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _kinds(tensors: Sequence[Tensor | None]) -> Kinds:
    return tuple([(x.device.type, x.dtype) for x in tensors if x is not None])


def _named(backend: str) -> tuple[str, str, bool]:
    """The backend asked for, which setting asked, and whether Triton's interpreter is switched on."""
    name, source = backend, "backend"
    if name == "auto":
        name, source = os.environ.get("SALIENCE_BACKEND") or "auto", "SALIENCE_BACKEND"
    # Only "triton" by name looks at the switch: reading the environment is what costs most here.
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
    if name != "auto":
        if why := missing.get(name):
            raise RuntimeError(f"the backend {name!r} cannot run {op} here: {why}.")
        others = {each: why or "another was asked for" for each, why in missing.items() if each != name}
        return Choice(op=op, backend=name, why=f"{source} asks for it", others=others)
    device = kinds[0][0]
    for each in FASTEST:
        if missing[each] is None:
            others = {other: why for other, why in missing.items() if why is not None}
            others["reference"] = "a plain loop, for comparison and for what no kernel takes"
            return Choice(op=op, backend=each, why=f"the fastest for tensors on {device}", others=others)
    others = {other: why for other, why in missing.items() if why is not None}
    return Choice(op=op, backend="reference", why="no kernel takes these tensors", others=others)


def _missing(op: str, backend: str, interpreted: bool, kinds: Kinds) -> str | None:
    """Why a fused backend cannot run this, or None."""
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
    """The device to run on.

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
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ValueError(f"device {str(name)!r} is not on this machine; 'auto' takes what there is.")
    return device
