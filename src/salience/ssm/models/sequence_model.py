"""One residual shell for every mixer that is compared: what differs between two models is the mixer alone.

Letters: B batch, L length, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.gradients import no_gradients
from salience.ssm.layers.projections import blank
from salience.ssm.layers.s6 import check_mask
from salience.ssm.models import weights as files
from salience.ssm.models.sequence_config import SequenceConfig

KIND = "salience-sequence-model"  # model_type of our config.json


@dataclass(eq=False)
class SequenceState:
    """What a model carries from one step to the next: the layers' states, and for classifying what the mean needs.

    layers: one a layer   total: (B, d_model) float32 at least, the sum over the steps so far   steps: (B,) how many
    """

    layers: list[Any]
    total: Tensor
    steps: Tensor

    def take(self, rows: Tensor) -> SequenceState:
        """The state of these rows (n,), in this order."""
        layers = [layer.take(rows) for layer in self.layers]
        return SequenceState(layers, self.total.index_select(0, rows), self.steps.index_select(0, rows))

    def clone(self) -> SequenceState:
        """A copy that `step` may change without changing this one."""
        return SequenceState([layer.clone() for layer in self.layers], self.total.clone(), self.steps.clone())


class GatedMLP(nn.Module):
    """W_down (silu(W_gate x) * W_up x). Source: Shazeer, arXiv:2002.05202 (SwiGLU), without biases."""

    def __init__(self, d_model: int, expand: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, 2 * expand * d_model, bias=False)
        self.down = nn.Linear(expand * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) -> the same."""
        gate, value = self.up(x).chunk(2, dim=-1)
        y: Tensor = self.down(F.silu(gate) * value)
        return y


class Block(nn.Module):
    """x + dropout(mixer(norm(x))), then the same with the MLP where there is one."""

    def __init__(self, config: SequenceConfig, letter: str, backend: str) -> None:
        super().__init__()
        self.norm, self.mixer = nn.LayerNorm(config.d_model), config.layer(letter, backend)
        expand = config.mlp_of(letter)
        self.mlp_norm = nn.LayerNorm(config.d_model) if expand else None
        self.mlp = GatedMLP(config.d_model, expand) if expand else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        """(B, L, d_model) -> the same, and the mixer's state, None where neither is asked for nor given."""
        normed, after = self.norm(x), None
        if state is None and not return_state:
            y = self.mixer(normed, mask=mask)
        else:
            y, after = self.mixer(normed, mask=mask, state=state, return_state=True)
        return self._rest(x + self.dropout(y)), after

    def step(self, x: Tensor, state: Any) -> Tensor:
        """(B, d_model) -> the same; `state` moves on in place."""
        mixer: Any = self.mixer
        return self._rest(x + self.dropout(mixer.step(self.norm(x), state)))

    def _rest(self, x: Tensor) -> Tensor:
        if self.mlp is None or self.mlp_norm is None:
            return x
        added: Tensor = self.dropout(self.mlp(self.mlp_norm(x)))
        return x + added


class SequenceModel(nn.Module):
    """Embedding, residual blocks, a last norm and a head; the mixers are named by letters.

    M Mamba, B Mamba in both directions, A attention, W attention in a sliding window, D S4D, S S4, 5 S5, L LSTM. The
    shell is pre-norm (LayerNorm), the same for all.

    Args:    mixer: a pattern that repeats over the layers ("MMMA"), or mamba, bimamba, hybrid, s4, s4d, s5,
                 transformer, sparse, lstm
             d_model, n_layers: width and depth   dropout: of what each branch adds
             head: "classify" (the mean over the valid steps), "tag" (every step) or "next-token"
             n_classes: K; the vocabulary for next-token   vocab_size: of tokens, 0 for scalars and patches
             d_input: numbers a step, where there is no vocabulary: 1 scalars, more patches
             causal: False makes attention (A, W) and LSTM read both ways; B always does, the others never
             mlp: expansion of a gated MLP behind every mixer, 0 none; "auto" 2 behind those that have no gate of
                 their own (A, W, L)
             backend: of the mixers, see `salience.explain`
             mixer_options: the layers' own arguments by letter, {"M": {"d_state": 32}}
    Raises:  ValueError for a value that makes no sense, or a next-token head on a model that sees later steps
    """

    def __init__(
        self,
        *,
        mixer: str = "MMMA",
        d_model: int = 64,
        n_layers: int = 4,
        head: str = "classify",
        n_classes: int = 0,
        vocab_size: int = 0,
        d_input: int = 1,
        causal: bool = True,
        mlp: int | str = 0,
        dropout: float = 0.0,
        backend: str = "auto",
        mixer_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.config = config = SequenceConfig(
            mixer=mixer, d_model=d_model, n_layers=n_layers, head=head, n_classes=n_classes, vocab_size=vocab_size,
            d_input=d_input, causal=causal, mlp=mlp, dropout=dropout, mixer_options=mixer_options or {},
        )  # fmt: skip
        self.embed: nn.Module = (
            nn.Embedding(config.vocab_size, d_model) if config.vocab_size else nn.Linear(config.d_input, d_model)
        )
        self.blocks = nn.ModuleList([Block(config, letter, backend) for letter in config.letters])
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, config.n_classes)

    def forward(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        *,
        state: SequenceState | None = None,
        return_state: bool = False,
    ) -> Any:
        """Logits of a batch of sequences, or of the next chunk of them.

        Args:    inputs: (B, L) int64 tokens, or (B, L, d_input)   mask: (B, L) bool, True for valid steps; the others
                 are absent, wherever they are   state: of the chunk before, left as it is; causal models only
        Returns: (B, K) to classify, all steps since the beginning counting, (B, L, K) otherwise; with return_state
                 also the state after the inputs
        Raises:  ValueError for shapes that disagree, or a state of a model that sees later steps
        """
        self._check(inputs, mask)
        if state is not None or return_state:
            self._streams()
        x, after = self.embed(inputs), []
        before = [None] * len(self.blocks) if state is None else state.layers
        for block, own in zip(self.blocks, before, strict=True):
            x, new = block(x, mask, own, return_state)
            after.append(new)
        x = self.norm(x)
        if self.config.head != "classify" and not return_state:
            return self.head(x)
        total, steps = self._sums(x, mask)
        if state is not None:
            total, steps = total + state.total, steps + state.steps
        logits = self._classes(total, steps, x.dtype) if self.config.head == "classify" else self.head(x)
        return (logits, SequenceState(after, total, steps)) if return_state else logits

    @no_gradients
    def step(self, inputs: Tensor, state: SequenceState) -> Tensor:
        """One more step a row: (B,) tokens or (B, d_input) -> logits (B, K), those of all steps so far to classify.

        `state` moves on in place. No gradients.
        """
        self._streams()
        x = self.embed(inputs)  # (B, d_model)
        for block, own in zip(self._blocks, state.layers, strict=True):
            x = block.step(x, own)
        x = self.norm(x)
        state.total += x.to(state.total.dtype)
        state.steps += 1
        if self.config.head == "classify":
            return self._classes(state.total, state.steps, x.dtype)
        logits: Tensor = self.head(x)
        return logits

    def init_state(self, batch: int, *, dtype: torch.dtype | None = None) -> SequenceState:
        """The state before the first step. Raises: ValueError for a model that sees later steps."""
        self._streams()
        layers = [cast("Any", block.mixer).init_state(batch, dtype=dtype) for block in self._blocks]
        head = blank(self.head, self)
        total = head.new_zeros(batch, self.config.d_model, dtype=_wide(head.dtype))
        return SequenceState(layers, total, total.new_zeros(batch, dtype=torch.int64))

    def n_params(self) -> int:
        """How many numbers are learnt."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _sums(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, L, d_model) -> the sum over the valid steps (B, d_model), and their number (B,)."""
        wide = x.to(_wide(x.dtype))
        if mask is None:
            return wide.sum(1), torch.full((x.shape[0],), x.shape[1], device=x.device)
        return wide.masked_fill(~mask[..., None], 0).sum(1), mask.sum(1)

    def _classes(self, total: Tensor, steps: Tensor, dtype: torch.dtype) -> Tensor:
        logits: Tensor = self.head((total / steps.clamp_min(1)[:, None]).to(dtype))
        return logits

    def _check(self, inputs: Tensor, mask: Tensor | None) -> None:
        tokens = self.config.vocab_size > 0
        if inputs.ndim != (2 if tokens else 3) or inputs.shape[1] == 0 or (
            not tokens and inputs.shape[2] != self.config.d_input
        ):  # fmt: skip
            wanted = "(B, L)" if tokens else f"(B, L, {self.config.d_input})"
            raise ValueError(f"inputs must be {wanted} with L of at least 1, not {tuple(inputs.shape)}.")
        if inputs.dtype.is_floating_point == tokens:
            wanted = "whole numbers" if tokens else "floats"
            raise ValueError(f"inputs must be {wanted}, not {inputs.dtype}.")
        check_mask(mask, inputs.shape[:2])

    def _streams(self) -> None:
        if not self.config.reads_one_way:
            raise ValueError(f"state must be left out: a model that sees later steps ({self.config.mixer}) has none.")

    @property
    def _blocks(self) -> list[Block]:
        return cast("list[Block]", self.blocks)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors into `folder`; each aside, then renamed, the weights first.

        Raises:  ValueError for a model with parts that are wrapped, in few bits or elsewhere (LoRA, quantisation)
        """
        files.require_own_weights(self, lambda: SequenceModel(**self.config.describe()))
        target = Path(folder)
        weights = {name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}
        files.write_weights(target / files.SAFE, weights)
        files.write_object(target / files.CONFIG, {"model_type": KIND, **self.config.describe()})
        return target

    @classmethod
    def from_pretrained(
        cls, path_or_id: str | Path, *, revision: str | None = None, backend: str = "auto"
    ) -> SequenceModel:
        """A model from a folder or the hub ("owner/name"), in evaluation mode on the CPU, in the dtype it was saved in.

        Raises:  ValueError when there is none, or a field or a weight is unknown, missing or of another shape
        """
        folder, told = files.find_model(path_or_id, revision=revision)
        where = folder / files.CONFIG
        if told.pop("model_type", None) != KIND:
            raise ValueError(f"{where} describes no SequenceModel: its model_type is not {KIND!r}.")
        unknown = sorted(set(told) - {each.name for each in fields(SequenceConfig)})
        if unknown:
            raise ValueError(f"{where} has fields this version does not know: {', '.join(unknown)}.")
        with torch.random.fork_rng(devices=[]):  # what is drawn is thrown away, and the caller's draws stay his
            try:
                model = cls(backend=backend, **told)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{where} describes no SequenceModel: {error}") from error
        weights = files.read_weights(folder, allow_pickle=False)
        files.check_weights(weights, model.state_dict(), str(folder))
        model.load_state_dict(weights, assign=True)
        return model.eval()


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What sums over steps are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32
