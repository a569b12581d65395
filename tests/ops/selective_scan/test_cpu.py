"""The CPU kernels: outputs, states and every gradient are the reference's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from salience.ops.selective_scan import selective_scan, selective_scan_step

from .cpu_cases import Call, error, random_call

# Of the largest value. float32: sums of up to a few thousand products in another order than the float64 reference's;
# float64: the same with its eps. bfloat16 and float16: results are rounded to 8 and 11 bits, nothing in between is.
WITHIN = {torch.float32: 2e-5, torch.float64: 1e-13, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def compare(call: Call, *, dstate: bool = True) -> None:
    dtype = call.u.dtype
    want = call.double().everything("reference", dstate=dstate)
    got = call.everything("cpu", dstate=dstate)
    assert got.keys() == want.keys()
    for name, x in got.items():
        kind = dtype if name in ("y", "u", "dt", "B", "C", "z") else x.dtype
        assert x.dtype == kind and x.shape == want[name].shape, name
        assert error(x, want[name]) <= WITHIN[kind], (name, error(x, want[name]))


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 100, 1000])
def test_lengths(length: int) -> None:
    compare(random_call(length=length, batch=1))


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("channels", [1, 16, 67, 130])
def test_channels(channels: int, dtype: torch.dtype) -> None:
    compare(random_call(channels=channels, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("states", [1, 3, 4, 16, 17, 33])
def test_states(states: int, dtype: torch.dtype) -> None:
    compare(random_call(states=states, dtype=dtype, length=66))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("mask", "seq_idx"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("optional", [False, True])
def test_options(optional: bool, mask: bool, seq_idx: bool, reverse: bool) -> None:
    call = random_call(length=130, optional=optional, mask=mask, seq_idx=seq_idx, reverse=reverse, groups=3)
    compare(call)
    compare(call, dstate=False)


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("layout", ["half", "turned"])
def test_strides(layout: str, dtype: torch.dtype) -> None:
    compare(random_call(layout=layout, dtype=dtype, groups=3, mask=True))


def test_without_softplus_and_large_steps() -> None:
    compare(random_call(softplus=False))
    compare(random_call(scale=20.0))


def test_every_step_a_sequence_of_its_own() -> None:
    call = random_call(length=130)
    compare(replace(call, seq_idx=torch.arange(130).expand(2, -1)))


def test_a_row_that_is_all_masked() -> None:
    call = random_call(length=70)
    mask = torch.ones(2, 70, dtype=torch.bool)
    mask[1] = False
    compare(replace(call, mask=mask))


def test_what_is_masked_is_never_read() -> None:
    call = random_call(mask=True)
    assert call.mask is not None
    poisoned = replace(call, **{n: getattr(call, n).clone() for n in ("u", "dt", "B", "C", "z")})  # type: ignore[arg-type]
    for name in ("u", "dt", "B", "C", "z"):
        getattr(poisoned, name)[~call.mask] = torch.nan
    clean, dirty = call.everything("cpu"), poisoned.everything("cpu")
    assert all(torch.equal(x, dirty[name]) for name, x in clean.items())


def test_other_dtypes_for_each_tensor() -> None:
    call = random_call()
    mixed = replace(call, u=call.u.bfloat16(), B=call.B.half(), A=call.A.double())
    want, got = mixed.double().everything("reference"), mixed.everything("cpu")
    assert got["u"].dtype == torch.bfloat16 and got["B"].dtype == torch.float16 and got["A"].dtype == torch.float64
    # the outputs' own rounding, y's to 8 bits
    assert all(error(x, want[name]) < (2**-8 if name in ("y", "u") else 2**-10) for name, x in got.items())


def test_gradcheck() -> None:
    call = random_call(length=66, batch=1, channels=3, states=3, dtype=torch.float64, mask=True, seq_idx=True)
    leaves = {name: getattr(call, name).requires_grad_() for name in call.there()}

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return replace(call, **dict(zip(leaves, tensors, strict=True))).run("cpu")

    assert torch.autograd.gradcheck(run, tuple(leaves.values()), fast_mode=True)


def test_twice_the_same_bits_for_any_number_of_threads() -> None:
    call = random_call(channels=200, length=200)
    want, before = call.everything("cpu"), torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert all(torch.equal(x, want[name]) for name, x in call.everything("cpu").items())
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize(("channels", "states", "groups"), [(1, 1, 1), (37, 16, 1), (48, 19, 3), (4500, 16, 1)])
def test_steps_are_the_scan(channels: int, states: int, groups: int, dtype: torch.dtype) -> None:
    call = random_call(length=3, channels=channels, states=states, groups=groups, dtype=dtype)
    y, last = call.run("cpu")
    assert call.initial_state is not None and call.z is not None
    state = call.initial_state.clone()
    for t in range(3):
        got = selective_scan_step(
            state, call.u[:, t], call.dt[:, t], call.A, call.B[:, t], call.C[:, t], call.D, z=call.z[:, t],
            dt_bias=call.dt_bias, dt_softplus=True, backend="cpu",
        )  # fmt: skip
        assert error(got, y[:, t]) <= WITHIN[dtype] * (2 if dtype.itemsize == 2 else 1)  # two roundings of 16 bits
    assert error(state, last) <= WITHIN[state.dtype]


def test_steps_on_a_strided_state() -> None:
    call = random_call(length=1, channels=19, states=6, optional=False)
    wide = torch.zeros(2, 6, 19).transpose(1, 2)
    tensors = (call.u[:, 0], call.dt[:, 0].abs(), call.A, call.B[:, 0], call.C[:, 0])
    y = selective_scan_step(wide, *tensors, backend="cpu")
    plain = torch.zeros(2, 19, 6)
    assert torch.equal(y, selective_scan_step(plain, *tensors, backend="cpu")) and torch.equal(wide, plain)


def test_compiled_whole() -> None:
    call = random_call(length=9)
    want, _ = call.run("cpu")
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda u, dt: selective_scan(u, dt, call.A, call.B, call.C), fullgraph=True, backend="eager"
    )
    plain = selective_scan(call.u, call.dt.abs(), call.A, call.B, call.C)
    assert torch.equal(compiled(call.u, call.dt.abs()), plain) and want.shape == plain.shape
