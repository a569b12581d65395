"""LSTM: the recurrent network that state spaces are compared with, on torch's own kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from salience.core.backend import transformed
from salience.core.gradients import no_gradients
from salience.ssm.layers.layer_state import LayerState
from salience.ssm.layers.projections import blank
from salience.ssm.layers.s6 import check_input, whole_number
from salience.ssm.layers.valid_steps import ScanOrder

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # torch's, of a direction


@dataclass(eq=False)
class LSTMState(LayerState):
    """h, c: (B, H)."""

    h: Tensor
    c: Tensor


class LSTM(nn.Module):
    """torch's LSTM, one layer, one way or both, and a matrix back to d_model.

    Source: Hochreiter and Schmidhuber 1997, with forget gates. Forget biases start at 1 (Jozefowicz et al. 2015).

    Args:    d_model: width of inputs and outputs   d_hidden: H of each direction, None for d_model
             causal: False for a second direction   backend: taken for the sake of the other layers; torch has one path
    Raises:  ValueError for sizes that are no whole numbers
    """

    def __init__(
        self, d_model: int, *, d_hidden: int | None = None, causal: bool = True, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.d_model, self.causal, self.backend = whole_number("d_model", d_model), causal, backend
        self.d_hidden = H = d_model if d_hidden is None else whole_number("d_hidden", d_hidden)
        self.lstm = nn.LSTM(d_model, H, batch_first=True, bidirectional=not causal)
        self.out_proj = nn.Linear(H if causal else 2 * H, d_model, bias=False)
        with torch.no_grad():
            for name, bias in self.lstm.named_parameters():
                if name.startswith("bias_ih"):
                    bias[H : 2 * H] = 1.0
                elif name.startswith("bias_hh"):
                    bias[H : 2 * H] = 0.0

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        state: LSTMState | None = None,
        return_state: bool = False,
        reverse: bool = False,
    ) -> Any:
        """Process a sequence, or the next chunk of one.

        Args:    x: (B, L, d_model)   mask: (B, L) bool, True for valid steps; a masked one is absent, wherever it is,
                 and its y is 0   state: of the chunk before, left as it is   reverse: from the last step to the first
        Returns: y (B, L, d_model); with return_state also the state after x, differentiable
        Raises:  ValueError for shapes or dtypes that disagree, or a state where causal is False
        """
        check_input(x, self.d_model, mask)
        if state is not None or return_state:
            self._streams()
        before = None if state is None else (state.h[None].to(x.dtype), state.c[None].to(x.dtype))
        order = ScanOrder(mask, reverse)
        u, counts = order.apply(x), order.counts
        if transformed():
            y, last = self._plain(u, counts, before)
        elif counts is None or (self.causal and not return_state):  # steps behind a row's valid ones are later
            y, (h, c) = self.lstm(u, before)
            last = LSTMState(h[0], c[0])
        else:
            y, last = self._packed(u, counts, before)
        y = order.undo(self.out_proj(y))
        return (y, last) if return_state else y

    def _packed(self, u: Tensor, counts: Tensor, before: tuple[Tensor, Tensor] | None) -> tuple[Tensor, LSTMState]:
        """Rows of different lengths, their valid steps in front; a row without any keeps its state."""
        packed = pack_padded_sequence(u, counts.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False)
        y, (h, c) = self.lstm(packed, before)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=u.shape[1])
        empty, start = (counts == 0)[:, None], (torch.zeros_like(h), torch.zeros_like(c)) if before is None else before
        return y, LSTMState(torch.where(empty, start[0][0], h[0]), torch.where(empty, start[1][0], c[0]))

    def _plain(self, u: Tensor, counts: Tensor | None,
               before: tuple[Tensor, Tensor] | None) -> tuple[Tensor, LSTMState]:  # fmt: skip
        """Step by step, for transformations that torch's LSTM has no rule for; rows as in `_packed`."""
        found, last = [], (u, u)
        for back in (False,) if self.causal else (False, True):
            weights = [getattr(self.lstm, f"{name}_l0{'_reverse' if back else ''}") for name in NAMES]
            W_in, W_own, b_in, b_own = weights
            if before is None:
                h = c = u.new_zeros(u.shape[0], self.d_hidden)
            else:
                h, c = before[0][0], before[1][0]
            steps = list(enumerate(F.linear(u, W_in, b_in).unbind(1)))
            ys: list[Tensor] = []
            for t, given in reversed(steps) if back else steps:
                i, f, g, o = (given + F.linear(h, W_own, b_own)).chunk(4, dim=-1)
                new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                new_h = o.sigmoid() * new_c.tanh()
                if counts is not None:
                    there = (t < counts)[:, None]
                    new_h, new_c = torch.where(there, new_h, h), torch.where(there, new_c, c)
                h, c = new_h, new_c
                ys.append(h)
            found.append(torch.stack(ys[::-1] if back else ys, dim=1))
            last = (h, c)
        return torch.cat(found, dim=-1), LSTMState(*last)

    @no_gradients
    def step(self, x: Tensor, state: LSTMState) -> Tensor:
        """One more step: x (B, d_model) -> y (B, d_model); `state` moves on in place. No gradients."""
        self._streams()
        before = (state.h[None].to(x.dtype), state.c[None].to(x.dtype))
        if transformed():
            y, last = self._plain(x[:, None], None, before)
        else:
            y, (h, c) = self.lstm(x[:, None], before)
            last = LSTMState(h[0], c[0])
        state.h.copy_(last.h)
        state.c.copy_(last.c)
        out: Tensor = self.out_proj(y[:, 0])
        return out

    def init_state(self, batch: int, *, dtype: torch.dtype | None = None) -> LSTMState:
        """The state before the first step, zeros."""
        self._streams()
        zeros = blank(self.out_proj, self).new_zeros(batch, self.d_hidden, dtype=dtype)
        return LSTMState(zeros, zeros.clone())

    def _streams(self) -> None:
        if not self.causal:
            raise ValueError("state must be left out: an LSTM that reads both ways (causal=False) has none.")
