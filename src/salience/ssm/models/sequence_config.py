"""What a `SequenceModel` is, as its config.json holds it, and its layers by their letters."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from salience.ssm.layers.s6 import whole_number
from salience.ssm.models.pattern import EITHER_WAY, LAYERS, is_causal, parse_pattern

HEADS = ("classify", "tag", "next-token")
#: layers without a gate of their own: these get the MLP of mlp="auto"
UNGATED = "AWL"


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """The shape of a sequence model; see `SequenceModel` for what each field means."""

    mixer: str
    d_model: int = 64
    n_layers: int = 4
    head: str = "classify"
    n_classes: int = 0
    vocab_size: int = 0
    d_input: int = 1
    causal: bool = True
    mlp: int | str = 0
    dropout: float = 0.0
    mixer_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixer", parse_pattern(self.mixer))
        for name in ("d_model", "n_layers"):
            whole_number(name, getattr(self, name))
        if self.n_layers < len(self.mixer):
            raise ValueError(f"n_layers must be at least {len(self.mixer)} for {self.mixer!r}, not {self.n_layers}.")
        self._check_inputs()
        self._check_head()
        if self.mlp != "auto":
            whole_number("mlp", self.mlp, least=0, also=' or "auto"')
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a share from 0 to below 1, not {self.dropout!r}.")
        self._check_options()

    def _check_inputs(self) -> None:
        for name in ("vocab_size", "d_input"):
            whole_number(name, getattr(self, name), least=0)
        if self.vocab_size and self.d_input > 1:
            raise ValueError(f"d_input must be left out where vocab_size is {self.vocab_size}, not {self.d_input}.")
        if not self.vocab_size and not self.d_input:
            raise ValueError("vocab_size (for tokens) or d_input (for scalars and patches) must be at least 1, not 0.")
        if self.vocab_size:
            object.__setattr__(self, "d_input", 0)

    def _check_head(self) -> None:
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, not {self.head!r}.")
        if self.head == "next-token":
            if not self.vocab_size:
                raise ValueError("head must be classify or tag for inputs that are no tokens, not 'next-token'.")
            if not self.reads_one_way:
                raise ValueError(
                    f"head must be classify or tag for a mixer that sees later steps ({self.mixer!r}, "
                    f"causal={self.causal}), not 'next-token'."
                )
            if self.n_classes not in (0, self.vocab_size):
                raise ValueError(
                    f"n_classes must be the vocab_size {self.vocab_size} for next-token, not {self.n_classes!r}."
                )
            object.__setattr__(self, "n_classes", self.vocab_size)
        else:
            whole_number("n_classes", self.n_classes, least=2)

    def _check_options(self) -> None:
        for letter, given in self.mixer_options.items():
            if letter not in self.mixer or not isinstance(given, Mapping):
                raise ValueError(
                    f"mixer_options must give options by letter of {self.mixer!r}, as in "
                    f'{{"{self.mixer[0]}": {{...}}}}, not {dict(self.mixer_options)!r}.'
                )
            known = set(inspect.signature(layer_class(letter).__init__).parameters)
            known -= {"self", "d_model", "causal", "backend"}
            unknown = sorted(set(given) - known)
            if unknown:
                raise ValueError(
                    f"mixer_options of {letter!r} must be of {', '.join(sorted(known))}, not {unknown[0]!r}."
                )

    @property
    def letters(self) -> str:
        """Pattern over all layers."""
        return (self.mixer * self.n_layers)[: self.n_layers]

    @property
    def reads_one_way(self) -> bool:
        """Whether no step sees a later one."""
        return is_causal(self.mixer, self.causal)

    def layer(self, letter: str, backend: str) -> nn.Module:
        options = dict(self.mixer_options.get(letter, {}))
        if letter in EITHER_WAY:
            options["causal"] = self.causal
        made: nn.Module = layer_class(letter)(self.d_model, **options, backend=backend)
        return made

    def mlp_of(self, letter: str) -> int:
        """Expansion of the MLP behind a layer of this letter, 0 for none."""
        return (2 if letter in UNGATED else 0) if isinstance(self.mlp, str) else self.mlp

    def describe(self) -> dict[str, Any]:
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**told, "mixer_options": {letter: dict(given) for letter, given in self.mixer_options.items()}}


def layer_class(letter: str) -> Any:
    """The class that a letter stands for, imported now."""
    module, _, name = LAYERS[letter].partition(":")
    return getattr(importlib.import_module(module), name)
