"""salience.compat: the CUDA packages' signatures and layouts, against loops straight from their definitions."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salience.ssm.compat import (
    causal_conv1d_fn,
    causal_conv1d_update,
    causal_conv1d_varlen_states,
    mamba_inner_fn,
    selective_scan_fn,
    selective_state_update,
)

ROWS, CHANNELS, LENGTH, STATES, WIDTH = 2, 6, 11, 3, 4

# of the largest value: float32 sums over eleven steps in another order; gradients sum over rows and steps besides
NEAR, GRADIENT = 1e-5, 1e-4


def near(got: Tensor, wanted: Tensor, tolerance: float = NEAR) -> None:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    difference = float((got - wanted).detach().abs().max())
    assert difference <= tolerance * float(wanted.detach().abs().max()), difference


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=dtype)


SIGNATURES = {
    selective_scan_fn: (
        "u delta A B C D z delta_bias delta_softplus return_last_state",
        (None, None, None, False, False),
    ),
    causal_conv1d_fn: (
        "x weight bias seq_idx initial_states return_final_states final_states_out activation",
        (None, None, None, False, None, None),
    ),
    causal_conv1d_update: (
        "x conv_state weight bias activation cache_seqlens conv_state_indices",
        (None, None, None, None),
    ),
    selective_state_update: (
        "state x dt A B C D z dt_bias dt_softplus state_batch_indices",
        (None, None, None, False, None),
    ),
    causal_conv1d_varlen_states: ("x cu_seqlens state_len", ()),
    mamba_inner_fn: (
        "xz conv1d_weight conv1d_bias x_proj_weight delta_proj_weight out_proj_weight out_proj_bias A B C D delta_bias "
        "B_proj_bias C_proj_bias delta_softplus checkpoint_lvl b_rms_weight c_rms_weight dt_rms_weight b_c_dt_rms_eps",
        (None, None, None, None, None, None, True, 1, None, None, None, 1e-6),
    ),
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__name__)
def test_signatures(function: Any) -> None:
    names, defaults = SIGNATURES[function]
    parameters = list(inspect.signature(function).parameters.values())
    assert [p.name for p in parameters] == names.split()
    assert all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters)
    assert tuple(p.default for p in parameters if p.default is not inspect.Parameter.empty) == defaults


def widened(x: Tensor, channels: int) -> Tensor:
    """B or C as (B, D, N, L), of whichever shape it came."""
    if x.dim() == 2:
        return x[None, :, :, None].expand(ROWS, -1, -1, LENGTH)
    grouped = x[:, None] if x.dim() == 3 else x
    return grouped.repeat_interleave(channels // grouped.shape[1], dim=1)


def scan_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
              bias: Tensor | None, softplus: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The recurrence, step after step; a complex one stands for itself and its conjugate."""
    if bias is not None:
        delta = delta + bias[:, None]
    delta = F.softplus(delta) if softplus else delta
    if A.is_complex():
        B, C = (x if x.dim() == 2 else torch.complex(x[..., ::2], x[..., 1::2]) for x in (B, C))
    B, C = widened(B, CHANNELS), widened(C, CHANNELS)
    h, found = torch.zeros(ROWS, CHANNELS, STATES, dtype=A.dtype), []
    for t in range(LENGTH):
        dt = delta[:, :, t, None]
        h = torch.exp(dt * A) * h + dt * B[..., t] * u[:, :, t, None]
        y = (h * C[..., t]).sum(-1)
        found.append(2 * y.real if A.is_complex() else y)
    out = torch.stack(found, dim=2)
    if D is not None:
        out = out + D[:, None] * u
    return (out if z is None else out * F.silu(z)), h


def inputs(kind: str, *, complex_: bool) -> dict[str, Any]:
    """kind: how B and C are given."""
    wide = 2 * LENGTH if complex_ else LENGTH
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "per step": ((ROWS, STATES, wide), (ROWS, STATES, wide)),
        "grouped": ((ROWS, 2, STATES, wide), (ROWS, 3, STATES, wide)),
        "constant": ((CHANNELS, STATES), (CHANNELS, STATES)),
        "mixed": ((CHANNELS, STATES), (ROWS, STATES, wide)),
    }
    B, C = (
        normal(*shape, seed=i, dtype=torch.complex64 if complex_ and len(shape) == 2 else torch.float32)
        for i, shape in enumerate(shapes[kind])
    )
    A = -normal(CHANNELS, STATES).abs()
    return {
        "u": normal(ROWS, CHANNELS, LENGTH, seed=1), "delta": normal(ROWS, CHANNELS, LENGTH, seed=2),
        "A": torch.complex(A, normal(CHANNELS, STATES, seed=3)) if complex_ else A, "B": B, "C": C,
    }  # fmt: skip


@pytest.mark.parametrize("options", [False, True], ids=["plain", "D, z, bias, softplus"])
@pytest.mark.parametrize("kind", ["per step", "grouped", "constant", "mixed"])
@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_scan_and_its_gradients(complex_: bool, kind: str, options: bool) -> None:
    given = {name: x.requires_grad_() for name, x in inputs(kind, complex_=complex_).items()}
    more = [normal(CHANNELS, seed=4), normal(ROWS, CHANNELS, LENGTH, seed=5), normal(CHANNELS, seed=6)]
    D, z, bias = [x.requires_grad_() for x in more] if options else [None] * 3
    if not options:  # a step without softplus has to be positive
        given["delta"] = given["delta"].detach().abs().requires_grad_()
    y, last = selective_scan_fn(*given.values(), D, z, bias, options, True)
    wanted, h = scan_loop(*given.values(), D, z, bias, options)
    assert y.dtype == torch.float32 and last.is_complex() == complex_
    near(y, wanted)
    near(last, h)
    leaves = [x for x in (*given.values(), D, z, bias) if x is not None]
    weights, of_h = normal(*y.shape, seed=8), normal(*last.shape, seed=9, dtype=last.dtype)
    got, want = (
        torch.autograd.grad((a * weights).sum() + (b * of_h).sum().real, leaves) for a, b in ((y, last), (wanted, h))
    )
    for a, b in zip(got, want, strict=True):
        near(a, b, GRADIENT)


def test_scan_gives_y_alone_unless_asked() -> None:
    given = inputs("per step", complex_=False)
    y = selective_scan_fn(**given, delta_softplus=True)
    assert isinstance(y, Tensor) and y.shape == given["u"].shape


def test_scan_in_half_precision() -> None:
    given = inputs("per step", complex_=False)
    low = {name: x if name == "A" else x.bfloat16() for name, x in given.items()}
    y, last = selective_scan_fn(**low, delta_softplus=True, return_last_state=True)
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    wanted, _ = scan_loop(*(x.float() for x in low.values()), None, None, None, True)
    near(y.float(), wanted, 2**-8)  # y's own rounding to eight bits


@pytest.mark.parametrize("heads", [None, 2], ids=["channels", "heads"])
@pytest.mark.parametrize("options", [False, True])
def test_state_update_is_the_scan(options: bool, heads: int | None) -> None:
    given = inputs("per step", complex_=False)
    D, z, bias = normal(CHANNELS, seed=4), normal(ROWS, CHANNELS, LENGTH, seed=5), normal(CHANNELS, seed=6)
    more = (D, z, bias) if options else (None, None, None)
    wanted, h = scan_loop(*given.values(), *more, True)

    def shaped(x: Tensor | None, axis: int) -> Tensor | None:
        return x if x is None or heads is None else x.unflatten(axis, (heads, -1))

    state = torch.zeros(ROWS, CHANNELS, STATES)
    state = state if heads is None else state.unflatten(1, (heads, -1))
    for t in range(LENGTH):
        x, dt, gate = (
            shaped(None if a is None else a[:, :, t], 1) for a in (given["u"], given["delta"], more[1])
        )  # fmt: skip
        y = selective_state_update(
            state, x, dt, shaped(given["A"], 0), given["B"][:, :, t], given["C"][:, :, t], shaped(more[0], 0), gate,
            shaped(more[2], 0), True,
        )  # fmt: skip
        near(y.reshape(ROWS, CHANNELS), wanted[:, :, t])
    near(state.reshape(ROWS, CHANNELS, STATES), h)


def test_state_update_of_heads_that_lie_apart() -> None:
    """The state moves in place even where a view of it as (B, D, N) cannot be had."""
    apart = torch.zeros(ROWS, 3, 2, STATES).transpose(1, 2)  # (B, 2 heads, 3, N)
    dense = torch.zeros(ROWS, 2, 3, STATES)
    x, A, B = normal(ROWS, 2, 3), -normal(2, 3, STATES).abs(), normal(ROWS, STATES)
    ys = [selective_state_update(state, x, x.abs(), A, B, B) for state in (apart, dense)]
    assert torch.equal(*ys) and torch.equal(apart, dense) and bool(dense.any())


def conv_loop(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial: Tensor | None,
              seq_idx: Tensor | None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (B, D, L) and the last W - 1 inputs; an input of another sequence counts as 0."""
    before = weight.shape[1] - 1
    padded = torch.cat([x.new_zeros(*x.shape[:2], before) if initial is None else initial, x], dim=2)
    found = []
    for t in range(x.shape[2]):
        window = padded[:, :, t : t + before + 1]
        if seq_idx is not None:
            own = F.pad(seq_idx, (before, 0), value=-7)[:, t : t + before + 1] == seq_idx[:, t, None]
            window = window * own[:, None]
        found.append((window * weight).sum(-1) + (0 if bias is None else bias))
    y = torch.stack(found, dim=2)
    return (F.silu(y) if activation else y), padded[:, :, -before:]


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("length", [1, 2, LENGTH])
def test_convolution_and_its_gradients(length: int, initial: bool, activation: str | None) -> None:
    x, weight, bias = normal(ROWS, CHANNELS, length), normal(CHANNELS, WIDTH), normal(CHANNELS, seed=3)
    state = normal(ROWS, CHANNELS, WIDTH - 1, seed=4) if initial else None
    leaves = [t.requires_grad_() for t in (x, weight, bias, state) if t is not None]
    got = causal_conv1d_fn(
        x, weight, bias, initial_states=state, return_final_states=True, activation=activation
    )  # fmt: skip
    wanted = conv_loop(x, weight, bias, activation, state, None)
    assert isinstance(got, tuple)
    for a, b in zip(got, wanted, strict=True):
        near(a, b)
    weights = [normal(*y.shape, seed=9) for y in got]
    ours, theirs = (
        torch.autograd.grad(sum((y * w).sum() for y, w in zip(pair, weights, strict=True)), leaves, allow_unused=True)  # type: ignore[arg-type]
        for pair in (got, wanted)
    )
    for a, b in zip(ours, theirs, strict=True):
        near(a, b, GRADIENT)


def test_convolution_of_packed_sequences_with_padding() -> None:
    x, weight = normal(ROWS, CHANNELS, LENGTH), normal(CHANNELS, WIDTH)
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 2, -1, -1], [3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]], dtype=torch.int32)
    y = causal_conv1d_fn(x, weight, seq_idx=seq_idx, activation="silu")
    wanted, _ = conv_loop(x, weight, None, "silu", None, seq_idx)
    assert isinstance(y, Tensor)
    near(y, wanted * (seq_idx >= 0)[:, None])  # and 0 on padding


def test_final_states_are_written_where_asked() -> None:
    x, weight, out = normal(ROWS, CHANNELS, LENGTH), normal(CHANNELS, WIDTH), torch.zeros(ROWS, CHANNELS, WIDTH - 1)
    _, state = causal_conv1d_fn(x, weight, return_final_states=True, final_states_out=out)
    assert state is out and torch.equal(out, x[:, :, -3:])


@pytest.mark.parametrize("kept", [3, 4, 6])
@pytest.mark.parametrize("lengths", [[None] * 5, [2, 1, 8], [None, 3, None]], ids=str)
@pytest.mark.parametrize("ring", [False, True], ids=["shifted", "ring"])
def test_convolution_update(ring: bool, lengths: list[int | None], kept: int) -> None:
    """One input (B, D) or several (B, D, L) a call; the state holds the last of them, shifted or as a ring."""
    weight, bias = normal(CHANNELS, WIDTH), normal(CHANNELS, seed=3)
    x = normal(ROWS, CHANNELS, sum(n or 1 for n in lengths))
    wanted, _ = conv_loop(x, weight, bias, "silu", None, None)
    state, seen, found = torch.zeros(ROWS, CHANNELS, kept), 0, []
    for n in lengths:
        new = x[:, :, seen] if n is None else x[:, :, seen : seen + n]
        count = torch.full((ROWS,), seen, dtype=torch.int32) if ring else None
        y = causal_conv1d_update(new, state, weight, bias, "silu", count)
        assert y.shape == new.shape
        found.append(y[:, :, None] if n is None else y)
        seen += n or 1
    near(torch.cat(found, dim=2), wanted)
    padded = F.pad(x, (kept, 0))  # input t stands at t + kept
    last = padded[:, :, -kept:]
    if ring:
        place = torch.tensor([t % kept for t in range(seen - kept, seen)])
        last = torch.empty_like(state).index_copy_(2, place, last)
    assert torch.equal(state, last)


S = inputs("per step", complex_=False)
X, W = torch.zeros(ROWS, CHANNELS, LENGTH), torch.zeros(CHANNELS, WIDTH)
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (selective_scan_fn, S | {"u": X[0]}, r"u must be \(B, D, L\), not \(6, 11\)"),
    (selective_scan_fn, S | {"delta": X[0]}, r"delta must have three axes, \(B, D, ...\), not \(6, 11\)"),
    (selective_scan_fn, S | {"B": S["B"].transpose(1, 2)}, r"B must be \(B, N, L\) = \(2, 3, 11\).* not \(2, 11, 3\)"),
    (selective_scan_fn, S | {"C": S["A"].T}, r"C must be \(D, N\) = \(6, 3\), not \(3, 6\)"),
    (selective_scan_fn, S | {"A": -S["A"]}, "A must not be positive"),
    (selective_scan_fn, S | {"u": X.long()}, "u must be floating point, not torch.int64"),
    (
        selective_scan_fn, S | {"A": S["A"].to(torch.complex64)},
        r"B must be \(B, N, L\) = \(2, 3, 22\), groups before N, or \(D, N\), not \(2, 3, 11\)",
    ),
    (causal_conv1d_fn, {"x": X[0], "weight": W}, r"x must be \(B, D, L\), not \(6, 11\)"),
    (causal_conv1d_fn, {"x": X, "weight": W[None]}, "weight must be"),
    (causal_conv1d_fn, {"x": X, "weight": W, "activation": "relu"}, "activation must be .*, not 'relu'"),
    (causal_conv1d_fn, {"x": X, "weight": W, "initial_states": W}, "initial_states must have three axes"),
    (
        causal_conv1d_update, {"x": X[..., 0], "conv_state": X[..., :2], "weight": W},
        r"conv_state must be \(B, D, S\) with \(B, D\) = \(2, 6\) as x and S at least 3, not \(2, 6, 2\)",
    ),
    *[
        (causal_conv1d_update, {"x": X[..., 0], "conv_state": X[..., :3], "weight": W, **given}, said)
        for given, said in (
            ({"conv_state": torch.zeros(2, 7, 3)}, r"conv_state must be .* = \(2, 6\) as x and .*, not \(2, 7, 3\)"),
            ({"cache_seqlens": torch.tensor([1, 2, 3])}, r"cache_seqlens must be \(2,\) .*, not .*\(3,\)"),
            ({"cache_seqlens": torch.tensor(1)}, r"cache_seqlens must be \(2,\) of whole numbers, not .*\(\)"),
            ({"cache_seqlens": torch.tensor([1.0, 2.0])}, "cache_seqlens must be .*, not torch.float32"),
            ({"cache_seqlens": 4}, r"cache_seqlens must be a tensor \(2,\) of whole numbers, not of type int"),
            ({"conv_state_indices": [0, 1]}, "conv_state_indices must be a tensor .*, not of type list"),
            (
                {"cache_seqlens": torch.tensor([1]), "conv_state_indices": torch.tensor([0, 1])},
                r"cache_seqlens must be \(2,\)",
            ),
        )
    ],
    (selective_state_update, {"state": X, "x": X[..., 0], "dt": X[..., 0], "A": S["A"], "B": S["B"][..., 0],
                              "C": S["C"][..., 0]}, r"state must be \(B, D, N\) = \(2, 6, 3\), not \(2, 6, 11\)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "given", "said"), REFUSED, ids=[f"{f.__name__}-{i}" for i, (f, _, _) in enumerate(REFUSED)]
)
def test_bad_input_is_one_sentence(function: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        function(**given)
    assert str(told.value).rstrip(".").count(". ") == 0


SLOTS = 7


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("ring", [False, True])
def test_convolution_states_by_index(index: torch.dtype, several: bool, ring: bool) -> None:
    """As continuous batching has it: a pool of states, a row for each sequence, padding below zero."""
    pool, weight, bias = normal(SLOTS, CHANNELS, 5), normal(CHANNELS, WIDTH), normal(CHANNELS)
    x = normal(4, CHANNELS, 3) if several else normal(4, CHANNELS)
    indices = torch.tensor([5, -1, 0, 2], dtype=index)
    seen = torch.tensor([9, 1, 4, 7], dtype=torch.int32) if ring else None
    wanted, before = pool.clone(), pool.clone()
    ys = torch.zeros_like(x)
    for row, slot in enumerate(indices.tolist()):
        if slot >= 0:
            own, count = wanted[slot : slot + 1], None if seen is None else seen[row : row + 1]
            ys[row] = causal_conv1d_update(x[row : row + 1], own, weight, bias, "silu", count)[0]
    y = causal_conv1d_update(x, pool, weight, bias, "silu", seen, conv_state_indices=indices)
    near(y, ys)
    assert torch.equal(pool, wanted)
    assert torch.equal(pool[[1, 3, 4, 6]], before[[1, 3, 4, 6]])  # nobody's
    assert float(y[1].abs().max()) == 0
    none = causal_conv1d_update(x, pool, weight, conv_state_indices=torch.full((4,), -1, dtype=index))
    assert float(none.abs().max()) == 0 and torch.equal(pool, wanted)


@pytest.mark.parametrize("heads", [False, True])
def test_scan_states_by_index(heads: bool) -> None:
    own = (2, CHANNELS) if heads else (CHANNELS,)
    pool, A, D, bias = normal(SLOTS, *own, STATES), -normal(*own, STATES).abs(), normal(*own), normal(*own, seed=1)
    x, dt, z = (normal(4, *own, seed=i) for i in range(3))
    B, C = (normal(4, 2, STATES, seed=i) if heads else normal(4, STATES, seed=i) for i in range(2))
    indices, wanted = torch.tensor([3, 6, -1, 0], dtype=torch.int32), pool.clone()
    ys = torch.zeros_like(x)
    for row, slot in enumerate(indices.tolist()):
        if slot >= 0:
            one = slice(row, row + 1)
            state = wanted[slot : slot + 1]
            ys[one] = selective_state_update(state, x[one], dt[one], A, B[one], C[one], D, z[one], bias, True)
    near(selective_state_update(pool, x, dt, A, B, C, D, z, bias, True, state_batch_indices=indices), ys)
    assert torch.equal(pool, wanted)


@pytest.mark.parametrize(
    "indices",
    [torch.tensor([0, 0]), torch.tensor([0, SLOTS]), torch.tensor([0]), torch.tensor([0.0, 1.0])],
    ids=["twice", "outside", "too few", "floats"],
)
def test_indices_that_cannot_be(indices: Tensor) -> None:
    pool = normal(SLOTS, CHANNELS, WIDTH - 1)
    with pytest.raises(ValueError, match="conv_state_indices must"):
        causal_conv1d_update(normal(2, CHANNELS), pool, normal(CHANNELS, WIDTH), conv_state_indices=indices)
    state, x = normal(SLOTS, CHANNELS, STATES), normal(2, CHANNELS)
    with pytest.raises(ValueError, match="state_batch_indices must"):
        selective_state_update(
            state, x, x, -normal(CHANNELS, STATES).abs(), normal(2, STATES), normal(2, STATES),
            state_batch_indices=indices,
        )  # fmt: skip


@pytest.mark.parametrize("state_len", [1, 3, 8])
def test_states_of_packed_sequences(state_len: int) -> None:
    lengths = [5, 1, 0, 9, 3]
    x, ends = normal(20, CHANNELS), [0]  # two tokens behind the last are nobody's
    for length in lengths:
        ends.append(ends[-1] + length)
    states = causal_conv1d_varlen_states(x, torch.tensor(ends, dtype=torch.int32), state_len)
    assert states.shape == (5, CHANNELS, state_len) and states.dtype == x.dtype
    for row, length in enumerate(lengths):
        for back in range(1, state_len + 1):  # from the last input to the first
            wanted = x[ends[row + 1] - back] if back <= length else torch.zeros(CHANNELS)
            assert torch.equal(states[row, :, -back], wanted)


def test_packed_states_go_on_as_each_sequence_would() -> None:
    x, weight = normal(9, CHANNELS), normal(CHANNELS, WIDTH)
    states = causal_conv1d_varlen_states(x, torch.tensor([0, 2, 9]), WIDTH - 1)
    more = normal(2, CHANNELS, seed=1)
    y = causal_conv1d_update(more, states, weight)
    for row, own in enumerate((x[:2], x[2:])):
        whole = torch.cat([own, more[row : row + 1]]).T[None]
        near(y[row], causal_conv1d_fn(whole, weight)[0, :, -1])  # type: ignore[index]


@pytest.mark.parametrize("places", [[0, 5, 3], [-1, 4], [0, 10], []])
def test_packed_sequences_that_cannot_be(places: list[int]) -> None:
    with pytest.raises(ValueError, match="cu_seqlens must"):
        causal_conv1d_varlen_states(normal(9, CHANNELS), torch.tensor(places, dtype=torch.int64), 3)


RANK, OUT = 2, 5


def block(*, complex_: bool = False, norms: bool = False, biases: bool = False, given: bool = False) -> dict[str, Any]:
    wide = STATES * (2 if complex_ else 1)
    A = -normal(CHANNELS, STATES).abs()
    made: dict[str, Any] = {
        "xz": normal(ROWS, 2 * CHANNELS, LENGTH), "conv1d_weight": normal(CHANNELS, 1, WIDTH),
        "conv1d_bias": normal(CHANNELS), "x_proj_weight": normal(RANK + 2 * wide, CHANNELS),
        "delta_proj_weight": normal(CHANNELS, RANK), "out_proj_weight": normal(OUT, CHANNELS),
        "out_proj_bias": normal(OUT), "A": torch.complex(A, normal(CHANNELS, STATES, seed=3)) if complex_ else A,
        "D": normal(CHANNELS, seed=2), "delta_bias": normal(CHANNELS, seed=3),
    }  # fmt: skip
    if norms:
        made |= {"b_rms_weight": normal(STATES, seed=4), "c_rms_weight": normal(STATES, seed=5),
                 "dt_rms_weight": normal(CHANNELS, seed=6), "b_c_dt_rms_eps": 0.1}  # fmt: skip
    if biases:
        made |= {"B_proj_bias": normal(wide, seed=7), "C_proj_bias": normal(wide, seed=8)}
    if given:
        made |= {"B": normal(CHANNELS, STATES, seed=9), "C": normal(ROWS, STATES, LENGTH, seed=10)}
    return made


def rms(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return x if weight is None else x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def block_by_hand(p: dict[str, Any]) -> Tensor:
    x, z = p["xz"][:, :CHANNELS], p["xz"][:, CHANNELS:]
    u = F.silu(F.conv1d(F.pad(x, (WIDTH - 1, 0)), p["conv1d_weight"], p["conv1d_bias"], groups=CHANNELS))
    selected = u.transpose(1, 2) @ p["x_proj_weight"].T  # (B, L, ...)
    wide = (selected.shape[-1] - RANK) // 2
    eps = p.get("b_c_dt_rms_eps", 1e-6)
    delta = rms(selected[..., :RANK] @ p["delta_proj_weight"].T, p.get("dt_rms_weight"), eps).transpose(1, 2)
    found = []
    for name, start in (("B", RANK), ("C", RANK + wide)):
        own = selected[..., start : start + wide]
        own = own if p.get(f"{name}_proj_bias") is None else own + p[f"{name}_proj_bias"]
        own = rms(own, p.get(f"{name.lower()}_rms_weight"), eps)
        if p["A"].is_complex():
            own = torch.stack([own[..., ::2], own[..., 1::2]], dim=-1).transpose(1, 2).flatten(2)
        else:
            own = own.transpose(1, 2)
        found.append(own if p.get(name) is None else p[name])
    y, _ = scan_loop(u, delta, p["A"], *found, p["D"], z, p["delta_bias"], True)
    out: Tensor = y.transpose(1, 2) @ p["out_proj_weight"].T + p["out_proj_bias"]
    return out


@pytest.mark.parametrize("options", [{}, {"norms": True}, {"biases": True}, {"complex_": True},
                                     {"complex_": True, "biases": True}, {"given": True}], ids=str)  # fmt: skip
def test_the_block_and_its_gradients(options: dict[str, Any]) -> None:
    given = block(**options)
    learnt = {name: t.requires_grad_() for name, t in given.items() if isinstance(t, Tensor)}
    got, wanted = mamba_inner_fn(**given), block_by_hand(given)
    near(got, wanted)
    weight = normal(*wanted.shape, seed=11)
    found = torch.autograd.grad((got * weight).sum(), list(learnt.values()), allow_unused=True)
    right = torch.autograd.grad((wanted * weight).sum(), list(learnt.values()), allow_unused=True)
    for mine, theirs in zip(found, right, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            near(mine, theirs, GRADIENT)


def test_the_block_is_a_mamba_layer() -> None:
    from salience import Mamba

    layer = Mamba(8, bias=True)
    x = normal(ROWS, LENGTH, 8)
    y = mamba_inner_fn(
        layer.in_proj(x).transpose(1, 2), layer.conv1d.weight, layer.conv1d.bias, layer.x_proj.weight,
        layer.dt_proj.weight, layer.out_proj.weight, layer.out_proj.bias, -layer.A_log.exp(), None, None, layer.D,
        layer.dt_proj.bias, delta_softplus=True,
    )  # fmt: skip
    near(y, layer(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"xz": normal(2, 3, 4)}, "xz must be"),
        ({"conv1d_weight": normal(CHANNELS, WIDTH)}, "conv1d_weight must be"),
        ({"checkpoint_lvl": 2}, "checkpoint_lvl must be 0 or 1"),
        ({"x_proj_weight": normal(3, CHANNELS)}, "x_proj_weight must be"),
        ({"B": normal(CHANNELS, STATES), "B_proj_bias": normal(STATES)}, "must be None where B is given"),
    ],
)
def test_a_block_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mamba_inner_fn(**{**block(), **change})
