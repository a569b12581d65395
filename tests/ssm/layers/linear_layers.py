"""What holds for each of S4, S4D and S5: checks that their test files call with a layer of theirs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from salience import parameter_groups

WIDTH = 6
# float64: sums of a few dozen products by another path; the FFT and powers of up to the length lose two more digits
NEAR: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}

MASKS = {
    "left": [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9],
    "right": [[1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 8 + [0]],
    "inner": [[1, 0, 1, 1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1, 0, 0]],
}


def inputs(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def moved(layer: nn.Module) -> nn.Module:
    """Every parameter moved from where it starts, so that each counts; float64."""
    g = torch.Generator().manual_seed(1)
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g, dtype=torch.float64))
    return layer


def by_steps(layer: Any, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    state = layer.init_state(x.shape[0]) if state is None else state
    return torch.stack([layer.step(x[:, t], state) for t in range(x.shape[1])], 1), state


def whole_is_the_recurrence(layer: Any) -> None:
    for length in (1, 2, 9, 50):
        x = inputs(2, length)
        state = layer.init_state(2)
        place = state.planes.data_ptr()
        ys, state = by_steps(layer, x, state)
        whole, last = layer(x, return_state=True)
        torch.testing.assert_close(whole, layer(x), rtol=0, atol=1e-12)
        torch.testing.assert_close(whole, ys, **NEAR)
        torch.testing.assert_close(last.planes, state.planes, **NEAR)
        assert state.planes.data_ptr() == place


def chunks_are_the_whole(layer: Any) -> None:
    x, state, ys = inputs(2, 23), None, []
    for chunk in x.split([5, 1, 17], 1):
        y, state = layer(chunk, state=state, return_state=True)
        ys.append(y)
    whole, last = layer(x, return_state=True)
    torch.testing.assert_close(torch.cat(ys, 1), whole, **NEAR)
    torch.testing.assert_close(state.planes, last.planes, **NEAR)


def gradients_flow_through_the_state(layer: Any) -> None:
    x = inputs(1, 8).requires_grad_()
    first, state = layer(x[:, :5], return_state=True)
    leaves = [x, *layer.parameters()]
    chunked = torch.cat([first, layer(x[:, 5:], state=state)], 1)
    ways = [torch.autograd.grad(y.square().sum(), leaves) for y in (chunked, layer(x))]
    for a, b in zip(*ways, strict=True):
        torch.testing.assert_close(a, b, **NEAR)


def padded_rows_are_the_rows_alone(layer: Any, kind: str, reverse: bool) -> None:
    mask, x = torch.tensor(MASKS[kind]).bool(), inputs(2, 9)
    before = layer(inputs(2, 4), return_state=True)[1]
    for entered in (None, before):
        poisoned = x.masked_fill(~mask[..., None], float("nan"))
        y, state = layer(poisoned, mask=mask, state=entered, return_state=True, reverse=reverse)
        assert not y[~mask].any()
        for row in range(2):
            own = None if entered is None else entered.take(torch.tensor([row]))
            alone, last = layer(x[row : row + 1, mask[row]], state=own, return_state=True, reverse=reverse)
            torch.testing.assert_close(y[row, mask[row]], alone[0], **NEAR)
            torch.testing.assert_close(state.planes[row], last.planes[0], **NEAR)


def reverse_is_flip_run_flip(layer: Any) -> None:
    x = inputs(2, 9)
    y, state = layer(x, reverse=True, return_state=True)
    flipped, last = layer(x.flip(1), return_state=True)
    torch.testing.assert_close(y, flipped.flip(1), **NEAR)
    torch.testing.assert_close(state.planes, last.planes, **NEAR)
    y = layer(x, state=last, reverse=True)
    torch.testing.assert_close(y, layer(x.flip(1), state=last).flip(1), **NEAR)


def gradients_are_those_of_the_recurrence(layer: Any) -> None:
    """Of x and every parameter, beside autograd through one step after the other."""
    x = inputs(2, 7).requires_grad_()
    state, ys = layer.init_state(2).planes, []
    for t in range(7):
        y, state = layer.advance(x[:, t], state)
        ys.append(layer.leave(y + layer.D * x[:, t], x))
    leaves = [x, *layer.parameters()]
    wanted = torch.autograd.grad(torch.stack(ys, 1).square().sum(), leaves)
    for got, want in zip(torch.autograd.grad(layer(x).square().sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-8 * float(want.abs().max()))


def float32_keeps_to_the_recurrence(layer: Any, length: int = 300) -> None:
    """As it starts, in float32, over a few hundred steps."""
    x = inputs(1, length).float()
    ys, state = by_steps(layer, x)
    with torch.no_grad():
        whole, last = layer(x, return_state=True)
    # phases of up to a thousand radians a step, in float32
    torch.testing.assert_close(whole, ys, rtol=0, atol=1e-4 * float(ys.abs().max()))
    torch.testing.assert_close(last.planes, state.planes, rtol=0, atol=1e-4 * float(last.planes.abs().max()))


def copies_pickles_and_casts(layer: Any) -> None:
    x = inputs(1, 7)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    low = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), layer(x), rtol=0.1, atol=0.15)  # weights of eight bits
    single = copy.deepcopy(layer).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = single(x.float())
    torch.testing.assert_close(y.double(), layer(x), rtol=0.1, atol=0.05)  # the last product in eight bits


def ssm_parameters_have_their_group(layer: nn.Module, wanted: set[str]) -> None:
    names = {id(p): name for name, p in layer.named_parameters()}
    groups = {g["name"]: {names[id(p)] for p in g["params"]} for g in parameter_groups(layer, lr=1e-2, weight_decay=1)}
    assert groups["ssm"] == wanted


def takes_and_clones(layer: Any) -> None:
    _, state = layer(inputs(2, 3), return_state=True)
    assert torch.equal(state.take(torch.tensor([1, 1])).planes[0], state.planes[1])
    twin = state.clone()
    layer.step(inputs(2, 1)[:, 0], twin)
    assert not torch.equal(twin.planes, state.planes)


def compiles_as_one_graph(layer: Any) -> None:
    """Forward and backward; the mask too."""
    x, mask = inputs(2, 9), torch.tensor(MASKS["inner"]).bool()
    found = []
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        y = run(x, mask=mask)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), list(layer.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **NEAR)
