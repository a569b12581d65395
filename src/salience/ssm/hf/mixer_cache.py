"""One layer's part of transformers' own cache: read, continued and written in its own layout.

A layer of the cache holds the last `width` inputs of the convolution as (B, E, width), of which a window needs all but
the first, and the scan's state as (B, *A_log.shape).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.cache_guard import refuse_guarded


class MixerCache:
    """What a layer of the cache holds, and how it is written.

    Before the first call it holds neither.   conv: (B, E, width)   state: (B, E, N), a view into the cache
    """

    def __init__(self, cache: Any, index: int, width: int) -> None:
        refuse_guarded(cache)
        layer = cache.layers[index]
        if not hasattr(layer, "recurrent_states"):
            raise ValueError(
                f"cache has a {type(layer).__name__} at layer {index}, where a Mamba layer keeps its window and "
                "its state: make it with DynamicCache(config=model.config)."
            )
        self._cache, self._index, self._width = cache, index, width
        self._recording: bool = layer.record_past
        self.filled: bool = layer.has_previous_state[0]
        self.conv: Tensor | None = layer.conv_states[0] if self.filled else None
        state = layer.recurrent_states[0] if self.filled else None
        self.state: Tensor | None = None if state is None else state.flatten(1, -2)

    def can_step(self, x: Tensor) -> bool:
        """Whether one token can update the cache's own tensors; a cache that records its past wants new ones."""
        return self.state is not None and not self._recording and self.state.dtype == _state_dtype(x)

    def window(self) -> Tensor | None:
        """(B, width - 1, E), the inputs before this call, oldest first: a view into the cache."""
        return None if self.conv is None else self.conv[..., 1 - self._width :].transpose(1, 2)

    def initial(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The window and the state to continue from, in the dtypes that the operators take.

        Where gradients are on both are copies: autograd keeps them, and writing the cache would change them under it.
        """
        window, state = self.window(), self.state
        if window is None or state is None:
            return None, None
        window, state = window.to(x.dtype), state.to(_state_dtype(x))
        return (window.clone(), state.clone()) if torch.is_grad_enabled() else (window, state)

    def step(self) -> tuple[Tensor, Tensor]:
        """The window and the state for one step to update in place, where `can_step`.

        The input that leaves the window moves into the cache's spare first place, as in transformers.
        """
        window, state = self.window(), self.state
        assert self.conv is not None and window is not None and state is not None
        self.conv[..., 0].copy_(self.conv[..., 1])
        return window, state

    def write(self, x: Tensor, valid: Tensor | None, state: Tensor, shape: torch.Size) -> None:
        """Keep the convolution's last inputs (of x (B, L, E), those that are valid) and the state (B, E, N)."""
        if self._recording:
            inputs = x if valid is None else x * valid[..., None]
        elif valid is None:
            inputs = x[:, -self._width :]
        else:
            inputs = self._last_valid(x, valid)
        self._cache.update_conv_state(inputs.transpose(1, 2), self._index, conv_kernel_size=self._width)
        self._cache.update_recurrent_state(state.reshape(-1, *shape), self._index)

    def _last_valid(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, width, E): each row's last valid inputs, those of the cache before it, zeros before the beginning."""
        rows, _, channels = x.shape
        if self.conv is None:
            before = x.new_zeros(rows, self._width, channels)
        else:
            before = self.conv[..., -self._width :].transpose(1, 2).to(x.dtype)
        there = torch.cat([valid.new_ones(rows, self._width), valid], dim=1)  # (B, width + L)
        last = there.long().argsort(dim=1, stable=True)[:, -self._width :]  # the valid ones come last, in order
        return torch.cat([before, x], dim=1).gather(1, last[..., None].expand(-1, -1, channels))


def _state_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
