"""A convolution as long as the sequence, by FFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def long_conv(u: Tensor, k: Tensor, *, reverse: bool = False) -> Tensor:
    """y_t = sum over s <= t of k_{t-s} u_s, each channel with its own kernel; with `reverse`, of k_{s-t} u_s, s >= t.

    Args:    u: (B, L, D), float32 or float64   k: (D, L), the same dtype
    Returns: (B, L, D). Differentiable once in u and k
    """
    y: Tensor = _LongConv.apply(u, k, reverse)  # type: ignore[no-untyped-call]
    return y


class _LongConv(torch.autograd.Function):
    """The gradient is written out: autograd's own of `rfft` goes through a full complex transform."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, k: Tensor, reverse: bool) -> Tensor:
        size = fft_size(2 * u.shape[1])
        spectrum, factors = torch.fft.rfft(u.transpose(1, 2).contiguous(), n=size), torch.fft.rfft(k, n=size)
        ctx.save_for_backward(spectrum, factors)
        ctx.reverse = reverse
        # the conjugate of a spectrum runs the other way in time
        return _back(spectrum * (factors.conj() if reverse else factors), size, u.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        spectrum, factors = ctx.saved_tensors
        length = dy.shape[1]
        size = fft_size(2 * length)
        slope = torch.fft.rfft(dy.transpose(1, 2).contiguous(), n=size)
        du = dk = None
        if ctx.needs_input_grad[0]:
            du = _back(slope * (factors if ctx.reverse else factors.conj()), size, length)
        if ctx.needs_input_grad[1]:
            pair = spectrum * slope.conj() if ctx.reverse else spectrum.conj() * slope
            dk = torch.fft.irfft(pair.sum(0), n=size)[:, :length].contiguous()
        return du, dk, None


def _back(spectrum: Tensor, size: int, length: int) -> Tensor:
    """(B, D, frequencies) -> (B, L, D), the channels side by side."""
    y: Tensor = torch.fft.irfft(spectrum, n=size)
    return y[..., :length].transpose(1, 2).contiguous()


def fft_size(least: int) -> int:
    """The smallest even number of at least `least` with no prime factor above 5: what FFTs are fast at."""
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
