"""A convolution as long as the sequence, by FFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.backend import free, refuse_tangents, transformed
from salience.ops.derivatives import pullback

GROUP = 1 << 18  # numbers that are transformed together on a CPU: a megabyte or two stay in its cache


def long_conv(u: Tensor, k: Tensor, *, reverse: bool = False) -> Tensor:
    """Long convolution: y_t = sum over s <= t of k_{t-s} u_s, or with `reverse` over s >= t of k_{s-t} u_s.

    Each channel has its own kernel. The first gradient is written out, because autograd's gradient of `rfft` uses a
    full complex transform.

    Args:    u: (B, L, D), float32 or float64   k: (D, L), the same dtype
    Returns: (B, L, D). Differentiable in u and k
    """
    if u.shape[0] == 0:  # FFTs take no empty batch
        return u * k.mT
    y: Tensor = _plain(u, k, reverse) if transformed() or free(u.shape[1]) else long_conv_fwd(u, k, reverse)[0]
    return y


def _plain(u: Tensor, k: Tensor, reverse: bool) -> Tensor:
    """Plain PyTorch version, for derivatives and transformations that the operator has no rule for."""
    if reverse:
        return _plain(u.flip(1), k, False).flip(1)
    length = u.shape[1]
    size = 2 * length if free(length) else fft_size(2 * length)
    y: Tensor = torch.fft.irfft(torch.fft.rfft(u.transpose(1, 2), n=size) * torch.fft.rfft(k, n=size), n=size)
    return y[..., :length].transpose(1, 2)


@torch.library.custom_op("salience::long_conv_fwd", mutates_args=())
def long_conv_fwd(u: Tensor, k: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, and the spectra of u and of the kernel (whose conjugate runs the other way in time)."""
    refuse_tangents()
    length, size = u.shape[1], fft_size(2 * u.shape[1])
    factors = torch.fft.rfft(k, n=size)
    factors = factors.conj_physical() if reverse else factors
    spectrum = factors.new_empty(u.shape[0], *factors.shape)
    y, padded = u.new_empty(u.shape), _padded(u, size)
    for rows in _groups(u, size):
        part = _transform(u[rows], padded, spectrum[rows])
        y[rows] = torch.fft.irfft(part * factors, n=size)[..., :length].transpose(1, 2)
    return y, spectrum, factors


@torch.library.custom_op("salience::long_conv_bwd", mutates_args=())
def long_conv_bwd(dy: Tensor, spectrum: Tensor, factors: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The gradients of u and k."""
    refuse_tangents()
    length, size = dy.shape[1], fft_size(2 * dy.shape[1])
    back, total = factors.conj_physical(), torch.zeros_like(factors)
    du, padded = dy.new_empty(dy.shape), _padded(dy, size)
    for rows in _groups(dy, size):
        slope = _transform(dy[rows], padded, None)
        du[rows] = torch.fft.irfft(slope * back, n=size)[..., :length].transpose(1, 2)
        total += slope.conj_physical_().mul_(spectrum[rows]).sum(0)
    total = total if reverse else total.conj_physical()
    return du, torch.fft.irfft(total, n=size)[:, :length].contiguous()


@long_conv_fwd.register_fake
def _fwd_fake(u: Tensor, k: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    shape = u.shape[2], fft_size(2 * u.shape[1]) // 2 + 1
    kind = torch.complex128 if u.dtype == torch.float64 else torch.complex64
    return u.new_empty(u.shape), u.new_empty((u.shape[0], *shape), dtype=kind), u.new_empty(shape, dtype=kind)


@long_conv_bwd.register_fake
def _bwd_fake(dy: Tensor, spectrum: Tensor, factors: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return dy.new_empty(dy.shape), dy.new_empty((dy.shape[2], dy.shape[1]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:2], *output[1:])
    ctx.reverse = inputs[2]


def _differentiate(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, Tensor | None, None]:
    if dy is None:
        return None, None, None
    u, k, *spectra = ctx.saved_tensors
    if transformed() or torch.is_grad_enabled():  # a batch of gradients, say, or create_graph
        du, dk = pullback(lambda u, k: (_plain(u, k, ctx.reverse),), (u, k), (dy,), ctx.needs_input_grad[:2])
    else:
        du, dk = long_conv_bwd(dy, *spectra, ctx.reverse)
    return du, dk, None


long_conv_fwd.register_autograd(_differentiate, setup_context=_keep)


def _groups(u: Tensor, size: int) -> list[slice]:
    """Groups of rows, each small enough for the cache; one group on a GPU."""
    rows = u.shape[0] if u.device.type != "cpu" else min(u.shape[0], max(1, GROUP // (u.shape[2] * size)))
    return [slice(first, first + rows) for first in range(0, u.shape[0], rows)]


def _padded(u: Tensor, size: int) -> Tensor:
    """Zeroed buffer for a group; it stays zero behind the sequence."""
    groups = _groups(u, size)
    return u.new_zeros(groups[0].stop if groups else 0, u.shape[2], size)


def _transform(u: Tensor, padded: Tensor, out: Tensor | None) -> Tensor:
    """(b, L, D) -> (b, D, frequencies)."""
    padded = padded[: u.shape[0]]
    padded[..., : u.shape[1]] = u.transpose(1, 2)
    found: Tensor = torch.fft.rfft(padded) if out is None else torch.fft.rfft(padded, out=out)
    return found


def fft_size(least: int) -> int:
    """Smallest even number >= `least` with no prime factor above 5, for which FFTs are fast."""
    best = 2 << max(least - 1, 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            two = max(1, -(-least // three) - 1).bit_length()
            best = min(best, three << max(two, 1))
            three *= 3
        five *= 5
    return best
