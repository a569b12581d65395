"""The Triton kernels beside a loop straight from the definition, in float64. Run as a script: one JSON line of errors.

A script, since Triton's interpreter must be switched on before triton is imported:
TRITON_INTERPRET=1 python triton_cases.py
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

#: What each case changes of DEFAULT. The interpreter takes a second for a block of channels and a tile of steps: cases
#: are small, most of them one row, one group and one block of channels.
CASES: dict[str, dict[str, Any]] = {
    "two groups of two blocks": {"channels": 10, "groups": 2, "twice": True},
    "one step": {"length": 1},
    "one tile": {"length": 16},
    "a step over a tile": {"length": 17, "d_state": 5},
    "only what must be there": {"absent": ("D", "z", "dt_bias", "initial_state"), "softplus": False, "dstate": False},
    "mask": {"mask": True},
    "sequences": {"sequences": True},
    "mask, sequences, two rows": {"mask": True, "sequences": True, "length": 20, "batch": 2},
    "mask, sequences, reverse": {"mask": True, "sequences": True, "reverse": True, "groups": 3},
    "reverse": {"reverse": True, "length": 17},
    "segments": {"length": 33, "segments": 3},
    "segments, mask, sequences": {"length": 33, "segments": 2, "mask": True, "sequences": True},
    "segments, reverse, sequences": {"length": 33, "segments": 2, "sequences": True, "reverse": True},
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "strided": {"strided": True},
    "large dt": {"scale": 20.0, "dtype": torch.float32},
}
DEFAULT: dict[str, Any] = {
    "batch": 1, "length": 9, "channels": 3, "d_state": 3, "groups": 1, "dtype": torch.float64, "absent": (),
    "softplus": True, "reverse": False, "mask": False, "sequences": False, "segments": 1, "dstate": True,
    "strided": False, "scale": 1.0, "device": "cpu", "twice": False,
}  # fmt: skip
NAMES = ("u", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state")


def loop(tensors: dict[str, Tensor | None], mask: Tensor | None, seq_idx: Tensor | None, with_softplus: bool,
         reverse: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the last state, a step at a time."""
    u, dt, A, B, C, D, z, bias, h = (tensors[name] for name in NAMES)
    assert u is not None and dt is not None and A is not None and B is not None and C is not None
    batch, length, width = u.shape
    each = width // B.shape[2]
    h = u.new_zeros(batch, width, A.shape[1]) if h is None else h
    dt = dt if bias is None else dt + bias
    dt = softplus(dt) if with_softplus else dt
    valid = torch.ones(batch, length, dtype=torch.bool, device=u.device) if mask is None else mask
    found: list[Tensor] = [u.new_empty(0)] * length
    before: Tensor | None = None
    started = torch.zeros(batch, dtype=torch.bool, device=u.device)
    for t in reversed(range(length)) if reverse else range(length):
        on = valid[:, t]
        if seq_idx is not None:
            new = seq_idx[:, t]
            before = new if before is None else before
            h = torch.where((on & started & (new != before))[:, None, None], 0, h)
            before = torch.where(on, new, before)
            started = started | on
        b, c = (x[:, t].repeat_interleave(each, dim=1) for x in (B, C))
        step = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * b
        h = torch.where(on[:, None, None], step, h)
        y = (h * c).sum(-1)
        y = y if D is None else y + D * u[:, t]
        y = y if z is None else y * silu(z[:, t])
        found[t] = torch.where(on[:, None], y, 0)
    return torch.stack(found, 1), h


def draw(o: dict[str, Any]) -> dict[str, Tensor | None]:
    """Random arguments of the kernels."""
    g = torch.Generator().manual_seed(0)
    batch, length, width, n, groups = (o[k] for k in ("batch", "length", "channels", "d_state", "groups"))

    def normal(*shape: int) -> Tensor:
        wide = torch.randn(*shape, 2 if o["strided"] else 1, generator=g)
        return wide.to(o["dtype"])[..., 0]

    shapes = {
        "u": (batch, length, width), "dt": (batch, length, width), "B": (batch, length, groups, n),
        "C": (batch, length, groups, n), "z": (batch, length, width), "A": (width, n), "D": (width,),
        "dt_bias": (width,), "initial_state": (batch, width, n),
    }  # fmt: skip
    found: dict[str, Tensor | None] = {}
    for name in NAMES:
        x = normal(*shapes[name])
        if name in ("A", "D", "dt_bias", "initial_state") and o["dtype"] != torch.float64:
            x = x.float()
        x = -x.abs() if name == "A" else x
        x = (x * o["scale"] if o["softplus"] else 0.3 * x.abs()) if name == "dt" else x
        found[name] = None if name in o["absent"] else x.to(o["device"])
    return found


def errors(changed: dict[str, Any]) -> dict[str, float]:
    """For each output and gradient: the largest error over the largest value wanted (1e9 for what isn't finite)."""
    from salience.ops.selective_scan import triton
    from salience.ops.selective_scan.checks import ScanInputs

    o = DEFAULT | changed
    tensors = draw(o)
    g = torch.Generator().manual_seed(1)
    size = (o["batch"], o["length"])
    mask = (torch.rand(size, generator=g) > 0.3).to(o["device"]) if o["mask"] else None
    seq_idx = (torch.rand(size, generator=g) > 0.7).long().cumsum(1).to(o["device"]) if o["sequences"] else None
    exact = {n: None if x is None else x.double().clone().requires_grad_() for n, x in tensors.items()}
    wanted_y, wanted_h = loop(exact, mask, seq_idx, o["softplus"], o["reverse"])
    dy = torch.randn(wanted_y.shape, generator=g).to(o["device"]).to(o["dtype"])
    dh = torch.randn(wanted_h.shape, generator=g).to(o["device"]) if o["dstate"] else None
    loss = (wanted_y * dy).sum() + (0 if dh is None else (wanted_h * dh).sum())
    there = [n for n in NAMES if exact[n] is not None]
    gradients = dict(zip(there, torch.autograd.grad(loss, [exact[n] for n in there]), strict=True))
    if mask is not None:  # what is masked must not leak
        for name in ("u", "dt", "B", "C", "z"):
            x = tensors[name]
            if x is not None:
                x[~mask] = float("nan")
        dy[~mask] = float("nan")

    if o["device"] == "cpu":
        triton.segments_for = lambda *_: o["segments"]
    given = ScanInputs(*tensors.values(), mask, seq_idx, o["softplus"], o["reverse"])
    y, h, saved = triton.forward(given, True)
    if o["twice"]:  # and without checkpoints
        plain, plain_h, nothing = triton.forward(given, False)
        assert torch.equal(y, plain) and torch.equal(h, plain_h) and nothing.numel() == 0
    got = triton.backward(dy, dh, saved, given)
    if o["device"] == "cuda":
        again = triton.backward(dy, dh, saved, given)
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(got, again, strict=True)), "not deterministic"
    found = {"y": error(y, wanted_y), "state": error(h, wanted_h)}
    for name, gradient in zip(NAMES, got, strict=True):
        assert (gradient is None) == (tensors[name] is None)
        if gradient is not None:
            assert gradient.dtype == tensors[name].dtype and gradient.shape == tensors[name].shape
            found[f"d{name}"] = error(gradient, gradients[name])
    return found | step_errors(o)


def step_errors(o: dict[str, Any]) -> dict[str, float]:
    """One step of decoding."""
    from salience.ops.selective_scan import triton

    tensors = draw(o | {"length": 1, "absent": set(o["absent"]) - {"initial_state"}})
    exact = {n: None if x is None else x.double().clone() for n, x in tensors.items()}
    wanted_y, wanted_h = loop(exact, None, None, o["softplus"], False)
    state = tensors["initial_state"]
    u, dt, B, C, z = (None if tensors[n] is None else tensors[n][:, 0] for n in ("u", "dt", "B", "C", "z"))
    y = triton.step(state, u, dt, tensors["A"], B, C, tensors["D"], z, tensors["dt_bias"], o["softplus"])
    return {"step y": error(y, wanted_y[:, 0]), "step state": error(state, wanted_h)}


def error(got: Tensor, wanted: Tensor) -> float:
    if not got.isfinite().all():
        return 1e9
    return float((got.double() - wanted.detach()).abs().max() / wanted.detach().abs().max().clamp_min(1e-30))


def far_apart() -> float:
    """Rows so far apart that 32-bit offsets would overflow; memory between them is never touched."""
    from salience.ops.selective_scan import triton
    from salience.ops.selective_scan.checks import ScanInputs

    o = DEFAULT | {"batch": 1, "channels": 2, "d_state": 1, "groups": 1, "dtype": torch.float32, "length": 18}
    tensors = draw(o)
    row = 2**27
    assert row * 17 > 2**31
    far = torch.empty(0, dtype=torch.float32)
    far.untyped_storage().resize_((row * 17 + 2) * 4)
    u = far.as_strided((1, 18, 2), (0, row, 1))
    u.copy_(tensors["u"])
    given = ScanInputs(*tensors.values(), None, None, True, False)
    wanted, got = (triton.forward(each, False)[0] for each in (given, given._replace(u=u)))
    return error(got, wanted)


def through_the_operator(compiled: bool) -> dict[str, float]:
    """What a caller sees, by autograd and traced by torch.compile, beside the reference."""
    from salience.ops.selective_scan import selective_scan

    tensors = draw(DEFAULT)
    names = {"z", "dt_bias", "initial_state"}

    def run(backend: str) -> list[Tensor]:
        leaves = {n: x.clone().requires_grad_() for n, x in tensors.items() if x is not None}
        plain, named = ({n: x for n, x in leaves.items() if (n in names) == told} for told in (False, True))
        scan = torch.compile(selective_scan, backend="aot_eager", fullgraph=True) if compiled else selective_scan
        y, state = scan(*plain.values(), **named, dt_softplus=True, return_state=True, backend=backend)
        loss = y.square().sum() + state.sin().sum()
        return [y.detach(), state.detach(), *torch.autograd.grad(loss, list(leaves.values()))]

    compared = zip(("y", "state", *NAMES), run("triton"), run("reference"), strict=True)
    return {name: error(got, wanted) for name, got, wanted in compared}


def main() -> None:
    found: dict[str, Any] = {"far apart": {"y": far_apart()}}
    found |= {"operator": through_the_operator(False), "compiled": through_the_operator(True)}
    torch.use_deterministic_algorithms(True)  # fills what `empty` gives with NaN
    found |= {name: errors(case) for name, case in CASES.items()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
