"""Configuration of a comparison of sequence models, and names of the models."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace

from salience.lab.config_checks import require_whole
from salience.ssm.models.pattern import ALIASES, EITHER_WAY, is_causal

#: name -> one line for a list of models; their patterns are in `salience.ssm.models.pattern`
MODELS = {
    "mamba": "selective state space, reads forwards",
    "bimamba": "selective state space, reads both ways",
    "hybrid": "three Mamba layers, then one of attention",
    "s4": "state space, normal plus low rank",
    "s4d": "state space, diagonal",
    "s5": "state space, one for all channels, by parallel scan",
    "transformer": "causal attention with rotary positions",
    "sparse": "attention in a sliding window and to global tokens",
    "lstm": "long short-term memory",
}
#: letter -> layer
LETTERS = {
    "M": "Mamba", "B": "Mamba both ways", "A": "attention", "W": "windowed attention", "D": "S4D", "S": "S4",
    "5": "S5", "L": "LSTM",
}  # fmt: skip
#: option of a model: layers that can read both ways (A, W, L) do
BOTH = "noncausal"

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)

_QUICK = {"epochs": 1, "seeds": 1, "width": 16}  # at most
#: Options for few examples, of a task that is named without options.
_QUICK_OPTIONS = {
    **dict.fromkeys(("smnist", "psmnist", "digits49", "fashion", "listops"), "train=64,test=32"),
    **dict.fromkeys(("digit-tagging", "copying", "selective-copying"), "epoch=64,test=32"),
    "induction": "epoch=64,test=32,longest=512",
}


@dataclass(frozen=True)
class ModelSpec:
    """One model of a comparison. name: as given   pattern: letters, repeated over the layers
    causal: whether attention and LSTM see only earlier steps"""

    name: str
    pattern: str
    causal: bool = True

    @property
    def forwards(self) -> bool:
        """Whether each step sees only the steps before it."""
        return is_causal(self.pattern, self.causal)


def read_model(text: str) -> ModelSpec:
    """Read a name of `MODELS`, a pattern such as "MMMA", or either with ":noncausal".

    Raises:  ValueError, one sentence, for an unknown name (with the nearest one) or letter
    """
    name, colon, option = text.strip().partition(":")
    pattern = ALIASES.get(name.lower()) or name
    wrong = [letter for letter in pattern if letter not in LETTERS]
    known = ", ".join(f"{letter} ({layer})" for letter, layer in LETTERS.items())
    if not pattern or (wrong and not name.isupper()):
        near = difflib.get_close_matches(name.lower(), MODELS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(
            f"models must be of {', '.join(MODELS)}, or patterns such as MMMA of {known}, not {name!r}{hint}"
        )
    if wrong:
        raise ValueError(f"models: the pattern {name!r} has an unknown letter {wrong[0]!r}; letters are {known}.")
    if colon and option != BOTH:
        raise ValueError(f"models: after a colon only {BOTH!r} may stand, not {option!r} (in {text!r}).")
    if colon and not set(pattern) & set(EITHER_WAY):
        raise ValueError(f"models: {text!r} has no layer that could read both ways; B is the Mamba that does.")
    return ModelSpec(name=text.strip(), pattern=pattern, causal=not colon)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Task, models and the budget that every model gets. The defaults are those of `salience compare`.

    models: see `read_model`   seeds: number of runs of each model, counted from `seed`, which also makes the data
    width, n_layers: of every model; n_layers 0 means 2, or the number of letters of the longest pattern
    parameters: 0, or a number of parameters that every model's width is chosen for
    rates: full learning rates; of several, each model gets the one with the best accuracy on the validation split
    control: also train every model on shuffled labels, with the first seed
    lengths: of the sequences for timing inference; none for no timing   rounds: of the timing
    processes: training runs at the same time, each with `threads` threads; 0 for torch's own number
    """

    task: str = "digit-tagging"
    models: tuple[str, ...] = ("mamba", "bimamba", "transformer")
    seeds: int = 3
    seed: int = 0
    epochs: int = 5
    width: int = 64
    n_layers: int = 0
    parameters: int = 0
    batch: int = 32
    rates: tuple[float, ...] = (4e-3,)
    control: bool = False
    lengths: tuple[int, ...] = LENGTHS
    rounds: int = 7
    processes: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        require_whole(self, ("seeds", "epochs", "width", "batch", "rounds", "processes"), 1)
        require_whole(self, ("seed", "n_layers", "parameters", "threads"), 0)
        if wrong := [length for length in self.lengths if not isinstance(length, int) or length < 1]:
            raise ValueError(f"lengths must be whole numbers of at least 1, not {wrong[0]!r}.")
        if not self.rates or any(not (rate > 0 and math.isfinite(rate)) for rate in self.rates):
            raise ValueError(f"rates must be one or more numbers above 0, not {self.rates!r}.")
        if not self.models:
            raise ValueError("models must name at least one model.")
        object.__setattr__(self, "models", tuple(dict.fromkeys(name.strip() for name in self.models)))
        layers = self.layers
        for model in self.read:
            if len(model.pattern) > layers:
                raise ValueError(
                    f"n_layers is {layers}, but {model.name!r} has a pattern of {len(model.pattern)} layers "
                    f"({model.pattern}), which would be cut."
                )

    def quick(self) -> CompareConfig:
        """Return a configuration with few examples and a narrow model, to see that it works."""
        most = {name: min(getattr(self, name), limit) for name, limit in _QUICK.items()}
        options = _QUICK_OPTIONS.get(self.task)
        task = self.task if options is None else f"{self.task}:{options}"
        return replace(self, task=task, lengths=self.lengths[:1], rounds=1, **most)

    @property
    def read(self) -> tuple[ModelSpec, ...]:
        """The models as patterns."""
        return tuple(read_model(name) for name in self.models)

    @property
    def layers(self) -> int:
        """Number of layers of every model."""
        return self.n_layers or max(2, *(len(model.pattern) for model in self.read))
