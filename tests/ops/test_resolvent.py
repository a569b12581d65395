"""The resolvent's table beside complex arithmetic, with gradients."""

from __future__ import annotations

import torch

from salience.ops.resolvent import resolvent, resolvent_fwd


def drawn() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    m, r = torch.rand(2, 3, 4, generator=g, dtype=torch.float64)
    half = torch.linspace(0, torch.pi / 2, 5, dtype=torch.float64)
    return (m + 0.1).requires_grad_(), (-r - 0.1).requires_grad_(), half.sin(), half.cos()


def test_it_is_one_over_a_complex_number() -> None:
    m, r, s, c = drawn()
    wanted = 1 / torch.complex(c * c * m[..., None] - s * s, -2 * s * c * r[..., None])
    got = resolvent(m, r, s, c)
    torch.testing.assert_close(torch.complex(*got.chunk(2, dim=-1)), wanted)
    g = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ways = got, torch.cat([wanted.real, wanted.imag], dim=-1)
    for a, b in zip(*(torch.autograd.grad(y, (m, r), g) for y in ways), strict=True):
        torch.testing.assert_close(a, b)


def test_it_is_an_operator() -> None:
    torch.library.opcheck(resolvent_fwd, drawn(), test_utils=("test_schema", "test_faketensor"))
