"""What packing, chunks, padding and direction must not change, on every backend that runs here; gradients too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from .cpu_cases import LEAVES, Call, error, random_call

BACKENDS = ["reference", "cpu"]
ALONG = ("u", "dt", "B", "C", "z", "mask", "seq_idx")  # what has an axis of steps

# Of the largest value. The same products in another order, or in another lane of a vector: the last bits of float32,
# and where gradients are sums over all steps, as many roundings more.
NEAR, GRADIENT = 3e-6, 3e-5


def steps(call: Call, where: slice | Tensor, rows: slice = slice(None)) -> Call:
    """The call on some of its steps, and some of its rows."""
    found = {name: getattr(call, name)[rows][:, where] for name in ALONG if getattr(call, name) is not None}
    state = call.initial_state
    return replace(call, **found, initial_state=None if state is None else state[rows])


def turned(call: Call) -> Call:
    """Every sequence from its end."""
    return replace(call, **{name: getattr(call, name).flip(1) for name in ALONG if getattr(call, name) is not None})


def leaves(call: Call) -> Call:
    return replace(call, **{name: getattr(call, name).detach().requires_grad_() for name in call.there()})


def gradients(call: Call, y: Tensor, state: Tensor) -> dict[str, Tensor]:
    """Of a fixed weighted sum of y (B, L, D) and the state, with respect to the leaves of `call`."""
    g = torch.Generator().manual_seed(7)
    total = sum((x * torch.randn(x.shape, generator=g)).sum() for x in (y, state))
    assert isinstance(total, Tensor)
    names = call.there()
    return dict(zip(names, torch.autograd.grad(total, [getattr(call, n) for n in names]), strict=True))


def same(call: Call, got: tuple[Tensor, Tensor], other: Call, want: tuple[Tensor, Tensor]) -> None:
    """Outputs, states and gradients, each call being a graph of leaves with the same numbers."""
    assert all(error(x.detach(), y.detach()) <= NEAR for x, y in zip(got, want, strict=True))
    ours, theirs = gradients(call, *got), gradients(other, *want)
    for name, x in ours.items():
        assert error(x, theirs[name]) <= GRADIENT, (name, error(x, theirs[name]))


def separately(call: Call, cuts: Sequence[int], backend: str) -> list[tuple[Tensor, Tensor]]:
    """Each stretch alone; initial_state belongs to the one that is read first."""
    edges = [0, *torch.tensor(cuts).cumsum(0).tolist()]
    parts = [steps(call, slice(a, b)) for a, b in pairwise(edges)]
    first = len(parts) - 1 if call.reverse else 0
    return [
        (part if i == first else replace(part, initial_state=None)).run(backend) for i, part in enumerate(parts)
    ]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_equals_separate(backend: str, reverse: bool) -> None:
    cuts = [1, 40, 2, 7, 66]
    call, other = (leaves(random_call(batch=1, length=sum(cuts), reverse=reverse)) for _ in range(2))
    ids = torch.repeat_interleave(torch.arange(len(cuts)), torch.tensor(cuts))[None] % 3
    parts = separately(other, cuts, backend)
    want = torch.cat([y for y, _ in parts], dim=1), parts[0 if reverse else -1][1]
    same(call, replace(call, seq_idx=ids).run(backend), other, want)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_chunks_equal_the_whole(backend: str, reverse: bool) -> None:
    """The state carried, its gradient too."""
    call, other = (leaves(random_call(length=139, reverse=reverse, mask=True)) for _ in range(2))
    state, found = other.initial_state, []
    edges = [(0, 1), (1, 3), (3, 70), (70, 139)]
    for a, b in reversed(edges) if reverse else edges:
        y, state = replace(steps(other, slice(a, b)), initial_state=state).run(backend)
        found.append(y)
    assert state is not None
    same(call, call.run(backend), other, (torch.cat(found[::-1] if reverse else found, dim=1), state))


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_flip_scan_flip(backend: str) -> None:
    call, other = (leaves(random_call(length=75, mask=True, seq_idx=True, groups=3)) for _ in range(2))
    y, state = turned(other).run(backend)
    same(call, replace(call, reverse=True).run(backend), other, (y.flip(1), state))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("where", ["left", "right", "inside"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_padded_batch_equals_its_rows_alone(backend: str, where: str, reverse: bool) -> None:
    """Whatever stands in the padding, NaN here, takes no part, in y, states and gradients."""
    plain = random_call(batch=3, length=70, reverse=reverse)
    count, place = torch.tensor([70, 1, 41]), torch.arange(70).expand(3, 70)
    inside = torch.rand(3, 70, generator=torch.Generator().manual_seed(0)) > 0.4
    mask = {"left": place >= 70 - count[:, None], "right": place < count[:, None], "inside": inside}[where]
    poison = {name: getattr(plain, name).clone() for name in ("u", "dt", "B", "C", "z")}
    for x in poison.values():
        x[~mask] = torch.nan
    call, other = leaves(replace(plain, **poison, mask=mask)), leaves(plain)  # type: ignore[arg-type]
    rows, states = [], []
    for b in range(3):
        y, state = steps(other, mask[b], slice(b, b + 1)).run(backend)
        rows.append(torch.zeros(70, 21).index_put((mask[b],), y[0]))  # a masked step's y is 0
        states.append(state[0])
    same(call, call.run(backend), other, (torch.stack(rows), torch.stack(states)))


@st.composite
def calls(draw: st.DrawFn) -> Call:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    return random_call(
        batch=draw(st.integers(1, 3)), length=draw(st.integers(1, 140)), channels=groups * draw(st.integers(1, 24)),
        states=draw(st.integers(1, 9)), groups=groups, optional=draw(st.booleans()), softplus=draw(st.booleans()),
        mask=draw(st.booleans()), seq_idx=draw(st.booleans()), reverse=draw(st.booleans()),
        layout=draw(st.sampled_from(["plain", "half", "turned"])), seed=draw(st.integers(0, 1000)),
    )  # fmt: skip


@settings(max_examples=12, deadline=None, derandomize=True)
@given(call=calls(), cut=st.integers(0, 139))
def test_any_call(call: Call, cut: int) -> None:
    """The kernel is the reference, and two chunks of it are the whole, whatever the shapes, strides and options."""
    want, got = call.double().everything("reference"), call.everything("cpu")
    assert set(got) == {"y", "state", *(name for name in LEAVES if getattr(call, name) is not None)}
    for name, x in got.items():
        assert error(x, want[name]) <= GRADIENT, (name, error(x, want[name]))
    length = call.u.shape[1]
    cut %= length
    if cut and call.seq_idx is None:  # a state carries no word of the sequence it came from
        first, second = (slice(cut, length), slice(cut)) if call.reverse else (slice(cut), slice(cut, length))
        y1, middle = steps(call, first).run("cpu")
        y2, last = replace(steps(call, second), initial_state=middle).run("cpu")
        whole, state = call.run("cpu")
        assert error(torch.cat([y2, y1] if call.reverse else [y1, y2], dim=1), whole) <= NEAR
        assert error(last, state) <= NEAR
