"""Every operator under torch's transformations: forward mode, higher derivatives, batches; never a silent zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from salience.ops.causal_conv1d import causal_conv1d
from salience.ops.derivatives import pullback
from salience.ops.farthest_first import farthest_first
from salience.ops.linear_rows import linear_rows
from salience.ops.linear_scan import linear_scan
from salience.ops.long_conv import long_conv
from salience.ops.resolvent import resolvent
from salience.ops.selective_scan import selective_scan

# torch's own, where it first takes a derivative in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1]]).bool()
SEQUENCES = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 1, 2]])
# Of each operator, its options; all of them on the kernels of the CPU
STEPS: dict[str, dict[str, Any]] = {
    "": {},
    ", padded, packed, back": {"mask": MASK, "seq_idx": SEQUENCES, "reverse": True},
}
Run = Callable[..., tuple[Tensor, ...]]


def _complex(x: Tensor) -> Tensor:
    return torch.complex(x[0], x[1])


def _planes(found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.view_as_real(x) for x in found)


def _cases() -> dict[str, tuple[Run, list[Tensor]]]:
    """Name -> the call and its tensors, float64."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    B, L, D, N, W = 2, 5, 4, 3, 3
    found: dict[str, tuple[Run, list[Tensor]]] = {}
    for name, given in STEPS.items():
        options = {**given, "return_state": True, "backend": "cpu"}
        found["scan" + name] = (
            lambda u, dt, A, b, c, skip, z, bias, h, o=options: selective_scan(
                u, dt, A, b, c, skip, z=z, dt_bias=bias, dt_softplus=True, initial_state=h, **o
            ),
            [
                normal(B, L, D), normal(B, L, D), -normal(D, N).exp(), normal(B, L, 2, N), normal(B, L, 2, N),
                normal(D), normal(B, L, D), normal(D), normal(B, D, N),
            ],
        )  # fmt: skip
        found["convolution" + name] = (
            lambda x, w, b, h, o=options: causal_conv1d(x, w, b, activation="silu", initial_state=h, **o),
            [normal(B, L, D), normal(D, W), normal(D), normal(B, W - 1, D)],
        )
        found["linear scan" + name] = (
            lambda a, b, h, o=options: linear_scan(a, b, initial_state=h, **o),
            [normal(B, L, D), normal(B, L, D), normal(B, D)],
        )
        found["complex linear scan" + name] = (
            lambda a, b, h, o=options: _planes(linear_scan(_complex(a), _complex(b), initial_state=_complex(h), **o)),
            [normal(2, D), normal(2, B, L, D), normal(2, B, D)],
        )
    found["scan, nothing optional"] = (
        lambda u, dt, A, b, c: (selective_scan(u, dt, A, b, c, backend="cpu"),),
        [normal(B, L, D), normal(B, L, D).exp(), -normal(D, N).exp(), normal(B, L, N), normal(B, L, N)],
    )
    found["the state of a scan alone"] = (
        lambda u, dt: (selective_scan(u, dt.exp(), -torch.ones(D, N), u[..., :N], u[..., :N], return_state=True)[1],),
        [normal(B, L, D), normal(B, L, D)],
    )
    found["few rows"] = (lambda x, w, b: (linear_rows(x, w, b),), [normal(2, 3), normal(5, 3), normal(5)])
    for back in (False, True):
        found[f"long convolution{', back' * back}"] = (
            lambda u, k, back=back: (long_conv(u, k, reverse=back),),
            [normal(B, L, D), normal(D, L)],
        )
    angle = torch.linspace(0.1, 1.5, 4, dtype=torch.float64)
    found["resolvent"] = (
        lambda m, r: (resolvent(m, r, angle.sin(), angle.cos()),),
        [normal(2, 3).exp() + 2, -normal(2, 3).exp()],
    )
    return found


CASES = _cases()
NAMES = pytest.mark.parametrize("name", CASES)


def _flat(name: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    run, tensors = CASES[name]
    return lambda *given: torch.cat([x.flatten() for x in run(*given)]), tensors


def _loss(name: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    flat, tensors = _flat(name)
    return lambda *given: flat(*given).square().sum(), tensors


def _directions(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    return tuple(torch.randn(x.shape, generator=g, dtype=x.dtype) for x in tensors)


def _difference(f: Callable[..., Tensor], tensors: list[Tensor], along: tuple[Tensor, ...]) -> Tensor:
    step = 1e-6
    ahead, behind = (f(*[x + s * t for x, t in zip(tensors, along, strict=True)]) for s in (step, -step))
    return (ahead - behind).detach() / (2 * step)


def _close(got: Tensor, want: Tensor) -> None:
    # central differences in float64: 1e-10 of rounding and 1e-12 of curvature, over a few hundred products
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7 * float(want.abs().max()))


@NAMES
def test_a_tangent_is_the_difference_quotient(name: str) -> None:
    flat, tensors = _flat(name)
    along = _directions(tensors)
    want = _difference(flat, tensors, along)
    assert want.abs().max() > 0.1
    _close(jvp(flat, tuple(tensors), along)[1], want)
    with torch.no_grad(), fwd.dual_level():
        duals = [fwd.make_dual(x, t) for x, t in zip(tensors, along, strict=True)]
        _close(fwd.unpack_dual(flat(*duals)).tangent, want)


@NAMES
def test_gradients_of_gradients(name: str) -> None:
    run, tensors = CASES[name]
    leaves = [x.clone().requires_grad_() for x in tensors]
    options: dict[str, Any] = {"check_batched_grad": True, "fast_mode": True}
    # tolerances are torch's own defaults
    assert torch.autograd.gradcheck(
        run, leaves, check_forward_ad=True, check_batched_forward_grad=True, check_undefined_grad=True, **options
    )
    assert torch.autograd.gradgradcheck(run, leaves, check_fwd_over_rev=True, check_rev_over_rev=True, **options)


@NAMES
def test_a_penalty_on_a_gradient_reaches_every_input(name: str) -> None:
    """create_graph beside torch.func's composition of the same, which runs the definition."""
    loss, tensors = _loss(name)
    leaves = [x.clone().requires_grad_() for x in tensors]
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    got = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    every = tuple(range(len(tensors)))
    want = grad(lambda *x: sum(g.square().sum() for g in grad(loss, every)(*x)), every)(*tensors)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))  # float64, another order


@NAMES
def test_jacobians_and_hessians_by_every_way(name: str) -> None:
    loss, tensors = _loss(name)
    flat, _ = _flat(name)
    rest = tensors[1:]
    one = lambda x: loss(x, *rest)  # noqa: E731
    along = torch.ones_like(tensors[0])
    leaf = tensors[0].clone().requires_grad_()
    (want,) = torch.autograd.grad(one(leaf), leaf)
    near: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9 * float(want.abs().max())}  # float64, another order
    torch.testing.assert_close(grad(one)(tensors[0]), want, **near)
    torch.testing.assert_close(vjp(one, tensors[0])[1](torch.ones((), dtype=torch.float64))[0], want, **near)
    torch.testing.assert_close(jacfwd(flat)(*tensors), jacrev(flat)(*tensors), rtol=1e-9, atol=1e-9)
    by_hand = torch.autograd.functional.hvp(one, tensors[0], along)[1]
    near["atol"] = 1e-9 * float(by_hand.abs().max())
    torch.testing.assert_close(jvp(grad(one), (tensors[0],), (along,))[1], by_hand, **near)
    torch.testing.assert_close(vjp(grad(one), tensors[0])[1](along)[0], by_hand, **near)


@NAMES
def test_a_batch_is_its_parts(name: str) -> None:
    """vmap over all tensors and over each alone, and the gradient of each part."""
    loss, tensors = _loss(name)
    flat, _ = _flat(name)
    stacked = [torch.stack([x, 1.3 * x]) for x in tensors]
    parts = [[x[i] for x in stacked] for i in range(2)]
    torch.testing.assert_close(vmap(flat)(*stacked), torch.stack([flat(*part) for part in parts]))
    for k in range(len(tensors)):
        given, where = list(tensors), [None] * len(tensors)
        given[k], where[k] = stacked[k].movedim(0, -1), -1
        each = [[part[k] if j == k else x for j, x in enumerate(tensors)] for part in parts]
        torch.testing.assert_close(vmap(flat, tuple(where))(*given), torch.stack([flat(*x) for x in each]))
        got = vmap(grad(loss, k), tuple(where))(*given)
        wanted = []
        for x in each:
            leaf = x[k].clone().requires_grad_()
            wanted += torch.autograd.grad(loss(*x[:k], leaf, *x[k + 1 :]), leaf)
        torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-9, atol=1e-9 * float(got.abs().max()))


def test_third_derivatives() -> None:
    loss, tensors = _loss("scan")
    along = torch.ones_like(tensors[0])

    def twice(x: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(loss(x, *tensors[1:]), x, create_graph=True)
        return torch.autograd.grad((first * along).sum(), x, create_graph=True)[0]

    leaf = tensors[0].clone().requires_grad_()
    (got,) = torch.autograd.grad((twice(leaf) * along).sum(), leaf)
    shifted = [(tensors[0] + s * along).requires_grad_() for s in (1e-4, -1e-4)]
    want = (twice(shifted[0]) - twice(shifted[1])).detach() / 2e-4
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))  # a step of 1e-4


def test_an_input_made_of_another_keeps_its_own_share() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    y = x * x
    assert pullback(lambda a, b: (a * b,), (x, y), (torch.tensor(1.0),)) == (y, x)
    assert pullback(lambda a, b: (a + 0,), (x, y), (torch.tensor(1.0),), (False, True)) == (None, None)
    assert pullback(lambda a, b: (a, None), (x, None), (None, None)) == (None, None)


def test_what_is_chosen_is_chosen_in_a_batch_and_beside_tangents_too() -> None:
    distance = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    distance = distance + distance.mT
    want = torch.stack([farthest_first(each, 3) for each in distance])
    assert torch.equal(vmap(lambda x: farthest_first(x, 3))(distance), want)
    with fwd.dual_level():
        assert torch.equal(farthest_first(fwd.make_dual(distance[0], distance[0]), 3), want[0])


def test_single_precision_too() -> None:
    run, tensors = CASES["scan, padded, packed, back"]
    along = _directions(tensors)
    want = jvp(run, tuple(tensors), along)[1]
    got = jvp(run, tuple(x.float() for x in tensors), tuple(x.float() for x in along))[1]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-5 * float(b.abs().max()))  # sums in float32


@pytest.mark.parametrize("name", ["scan", "convolution", "linear scan", "long convolution", "resolvent"])
def test_a_traced_graph_refuses_tangents(name: str) -> None:
    """It holds operators that torch gives no tangent; their outputs would be taken for constants."""
    from torch.fx.experimental.proxy_tensor import make_fx

    flat, tensors = _flat(name)
    along = _directions(tensors)
    traced = make_fx(flat)(*tensors)
    assert torch.equal(traced(*tensors), flat(*tensors))
    with pytest.raises(RuntimeError, match=r"a traced, exported or compiled graph has no forward-mode derivatives"):
        jvp(traced, tuple(tensors), along)
    derivative = make_fx(lambda *x: jvp(flat, x, along)[1])(*tensors)
    torch.testing.assert_close(derivative(*tensors), jvp(flat, tuple(tensors), along)[1])


@pytest.mark.parametrize("name", ["scan", "convolution", "linear scan"])
def test_fake_tensors_outside_their_mode_reach_no_kernel(name: str) -> None:
    """They have no memory: a kernel that reads it kills the process."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    flat, tensors = _flat(name)
    mode = FakeTensorMode()
    for needed in (False, True):
        fakes = [mode.from_tensor(x).requires_grad_(needed) for x in tensors]
        found = flat(*fakes)
        assert type(found) is type(fakes[0])
        assert found.shape == flat(*tensors).shape


def test_a_hessian_of_the_scan() -> None:
    loss, tensors = _loss("scan, nothing optional")
    A, rest = tensors[2], (tensors[:2], tensors[3:])
    one = lambda A: loss(*rest[0], A, *rest[1])  # noqa: E731
    found = hessian(one)(A).reshape(A.numel(), A.numel())
    torch.testing.assert_close(found, found.T, rtol=1e-9, atol=1e-9 * float(found.abs().max()))
    along = torch.ones_like(A)
    want = torch.autograd.functional.vhp(one, A, along)[1].flatten()
    torch.testing.assert_close(found @ along.flatten(), want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))
