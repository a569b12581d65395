"""A mixer's forward on this package's operators.

Where it departs from transformers, transformers is wrong:
- Several tokens on a filled cache continue its state; there they start again from zero.
- A padding step is absent, wherever it is: the state waits, the convolution's window passes it over, and the cache
  holds the last valid inputs. There the state goes on decaying over inner and right padding, and with a bias in in_proj
  the bias enters the window as if it were an input.
- `seq_idx` also keeps the states of packed sequences apart, not the convolution's windows alone.
- A wrapped dt_proj or conv1d (LoRA, weight_norm) is called; there its weight is read, and what wraps it has no
  effect.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from salience.core.backend import eager
from salience.core.transformers_names import CACHE_NAMES, cache_in
from salience.ops.selective_scan import selective_scan, selective_scan_step
from salience.ssm.hf.forward_override import Override
from salience.ssm.hf.mixer_cache import MixerCache
from salience.ssm.hf.mixer_parts import Family
from salience.ssm.layers.convolutions import convolve, convolve_step
from salience.ssm.layers.projections import project


class FusedForward(Override):
    """What stands in for `mixer.forward`."""

    def __init__(self, mixer: nn.Module, family: Family, backend: str) -> None:
        super().__init__(mixer)
        self.family, self.backend = family, backend

    def __call__(
        self,
        hidden_states: Tensor,
        cache: Any = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        mixer = self.module
        if cache is None and kwargs:  # under the name of an earlier transformers
            cache = cache_in(kwargs)
            kwargs = {name: value for name, value in kwargs.items() if name not in CACHE_NAMES and value is not cache}
        if not self.active:  # undone, and somebody who wrapped us meanwhile still holds us
            theirs: Tensor = type(mixer).forward(mixer, hidden_states, cache, attention_mask, **kwargs)
            return theirs
        return self._forward(hidden_states, cache, attention_mask, kwargs.get("seq_idx"))

    def _forward(self, hidden: Tensor, cache: Any, mask: Tensor | None, seq_idx: Tensor | None) -> Tensor:
        mixer = self.module
        past = None if cache is None else MixerCache(cache, mixer.layer_idx, mixer.conv_kernel_size)
        x, z = self.family.split(project(mixer.in_proj, hidden, self.backend))
        one = hidden.shape[1] == 1 and mask is None and seq_idx is None and eager()
        if one and past is not None and past.can_step(x) and not _needs_gradients(mixer, hidden):
            y = self._step(x, z, past)
        else:
            y = self._scan(x, z, past, valid_steps(mask, hidden, past), seq_idx)
        return project(mixer.out_proj, y.to(hidden.dtype), self.backend)

    def _scan(
        self, x: Tensor, z: Tensor, past: MixerCache | None, valid: Tensor | None, seq_idx: Tensor | None
    ) -> Tensor:
        """(B, L, E): any number of tokens, continuing what the cache holds."""
        mixer, inputs = self.module, x
        window, state = (None, None) if past is None else past.initial(x)
        options: dict[str, Any] = {"mask": valid, "seq_idx": seq_idx, "backend": self.backend}
        y, _ = convolve(
            mixer.conv1d, inputs, mixer.conv_kernel_size, activation=_silu(mixer), initial_state=window, **options
        )
        x = _activated(mixer, y)
        dt, B, C, bias = self.family.select(mixer, x, self.backend)
        A, D = self.family.constants(mixer)
        options |= {"z": z, "dt_bias": bias, "dt_softplus": True, "initial_state": state}
        if past is None:
            y = selective_scan(x, dt, A, B, C, D, **options)
        else:
            y, state = selective_scan(x, dt, A, B, C, D, return_state=True, **options)
            past.write(inputs, valid, state, mixer.A_log.shape)
        return y

    def _step(self, x: Tensor, z: Tensor, past: MixerCache) -> Tensor:
        """(B, 1, E): one token, updating the cache in place."""
        mixer, backend = self.module, self.backend
        window, state = past.step()
        fused = self.family.step(mixer, x[:, 0], z[:, 0], window, state, backend)
        if fused is not None:
            return fused[:, None]
        x = convolve_step(
            mixer.conv1d, window, x[:, 0], mixer.conv_kernel_size, activation=_silu(mixer), backend=backend
        )
        x = _activated(mixer, x)
        dt, B, C, bias = self.family.select(mixer, x[:, None], backend)
        A, D = self.family.constants(mixer)
        y: Tensor = selective_scan_step(
            state, x, dt[:, 0], A, B[:, 0], C[:, 0], D, z=z[:, 0], dt_bias=bias, dt_softplus=True, backend=backend
        )
        return y[:, None]


def valid_steps(mask: Tensor | None, hidden: Tensor, past: MixerCache | None) -> Tensor | None:
    """A padding mask (B, L), or one that also covers what the cache holds, as (B, L) bool, True where there is a token.

    Raises:  ValueError when it has another shape
    """
    if mask is None:
        return None
    rows, length, _ = hidden.shape
    filled = past is not None and past.filled
    if mask.ndim != 2 or mask.shape[0] != rows or mask.shape[1] < length or (mask.shape[1] > length and not filled):
        more = " or longer by the tokens that the cache holds" if filled else ""
        lost = not filled and mask.ndim == 2 and mask.shape[0] == rows and mask.shape[1] > length
        # transformers switches the cache on again where it is given inputs_embeds
        why = ", and no filled cache came with it: with guidance_scale pass use_cache=False, and no inputs_embeds"
        why = why if lost else ""
        raise ValueError(f"attention_mask must be ({rows}, {length}){more}, not {tuple(mask.shape)}{why}.")
    return mask[:, mask.shape[1] - length :] != 0


def _needs_gradients(mixer: nn.Module, hidden: Tensor) -> bool:
    return torch.is_grad_enabled() and (hidden.requires_grad or any(p.requires_grad for p in mixer.parameters()))


def _silu(mixer: Any) -> Any:
    return "silu" if mixer.activation in ("silu", "swish") else None


def _activated(mixer: Any, x: Tensor) -> Tensor:
    """What comes after the convolution, where that is not fused into it."""
    y: Tensor = x if _silu(mixer) else mixer.act(x)
    return y
