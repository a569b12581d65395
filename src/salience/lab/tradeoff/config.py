"""Configuration of a trade-off: methods, keep ratios, and how much is measured."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Literal

from salience.lab.evaluate.ranking import works_inside
from salience.vlm.methods.registry import METHODS as TABLE
from salience.vlm.methods.registry import is_class_path, method_class

#: Published methods of the default comparison: the strongest training-free ones at a tenth of the tokens and below.
RIVALS = ("divprune", "vispruner", "visionzip")
#: Scorer that was fitted to shuffled targets. Only a study makes one.
SHUFFLED = "saliency-shuffled"
#: Scorers with random weights.
UNTRAINED = "saliency-untrained"
#: Oracles of all items, and of the items that a question is about.
ORACLE, ORACLE_QUESTION = "oracle", "oracle-question"
#: Methods that are compared where none are named.
DEFAULT_METHODS = (
    "saliency", "cls-attention", *RIVALS, "uniform", "random", ORACLE, ORACLE_QUESTION, SHUFFLED, UNTRAINED,
)  # fmt: skip
#: Those of them that are compared where pictures have no boxes of their items.
WITHOUT_BOXES = tuple(name for name in DEFAULT_METHODS if name not in (ORACLE, ORACLE_QUESTION, SHUFFLED, UNTRAINED))


@dataclass(frozen=True, kw_only=True)
class TradeoffConfig:
    """Configuration of a trade-off.

    task: "scenes", "easy-vqa", or "vqa:PATH", a folder in one of the layouts of `salience.lab.data.vqa`
    instruction: text after every question of other tasks than scenes, such as "Answer with one word."
    keeps: ratios in (0, 1]; 1 is always among them. Not .75: every method is within a point of all tokens there
    methods: of `nameable`, under their own names, or "module:Class"; None for the DEFAULT_METHODS that this model has
    pictures, questions: of the test split, at most so many questions for each picture
    probe_pictures: training pictures of the probe
    ceiling_pictures: of the oracle of the items asked about, whose questions cannot share a picture's prefix
    control_pictures, control_shifts: pictures whose questions are asked about how many other pictures
    draws: of `random`; the interval of each draw over pictures is wider than their spread
    untrained: scorers with random weights, a control   repeats: rounds of the timing
    costs: whether times, operations and bytes are measured; their columns are null otherwise
    examples: samples with pictures   save_pictures: contact sheets, of the first pictures
    """

    task: str = "scenes"
    instruction: str = ""
    keeps: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1, 0.05, 0.025)
    methods: tuple[str, ...] | None = None
    pictures: int = 100
    questions: int = 12
    probe_pictures: int = 300
    ceiling_pictures: int = 24
    control_pictures: int = 100
    control_shifts: int = 3
    draws: int = 3
    untrained: int = 2
    repeats: int = 9
    costs: bool = True
    examples: int = 6
    save_pictures: int = 0
    positions: Literal["original", "compact"] = "original"
    seed: int = 0

    @staticmethod
    def quick(*, seed: int = 0) -> TradeoffConfig:
        """Return the configuration of a run on few pictures, which shows that everything works and measures nothing."""
        return TradeoffConfig(
            keeps=(1.0, 0.25, 0.05), pictures=16, questions=8, probe_pictures=24, ceiling_pictures=6,
            control_pictures=8, control_shifts=1, draws=2, untrained=1, repeats=7, examples=2, seed=seed,
        )  # fmt: skip

    def __post_init__(self) -> None:
        if self.task not in ("scenes", "easy-vqa") and not (self.task.startswith("vqa:") and len(self.task) > 4):
            raise ValueError(f"task must be scenes, easy-vqa, or vqa:PATH with a folder's path, not {self.task!r}.")
        for keep in self.keeps:
            if not (isinstance(keep, float | int) and math.isfinite(keep) and 0 < keep <= 1):
                raise ValueError(f"keeps must be numbers above 0 and at most 1, not {keep!r}.")
        if not self.keeps:
            raise ValueError("keeps must hold at least one ratio.")
        if self.methods is not None:
            object.__setattr__(self, "methods", tuple(dict.fromkeys(map(_row_name, self.methods))))
        counts = "pictures questions draws repeats ceiling_pictures control_pictures control_shifts"
        for name in counts.split():
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}.")
        # All tokens are the reference of every column, so they are always measured.
        object.__setattr__(self, "keeps", tuple(sorted({1.0, *map(float, self.keeps)}, reverse=True)))

    @property
    def pruned(self) -> tuple[float, ...]:
        """The ratios below 1."""
        return self.keeps[1:]


def nameable() -> tuple[str, ...]:
    """Return the methods that a trade-off can compare: the default ones, and all of the library's table."""
    return (*DEFAULT_METHODS, *(name for name in TABLE if name not in DEFAULT_METHODS))


def of_table(method: str) -> bool:
    """Whether a method is made from the library's table or a class path, without a scorer or boxes."""
    own = ("saliency", "cls-attention", "uniform", "random", ORACLE)
    return is_class_path(method) or (method in TABLE and method not in own)


def named_inside(method: str) -> bool:
    """Whether a name is of a method that works inside the vision tower or the language model."""
    return of_table(method) and works_inside(method_class(method))


def reads_keys(config: TradeoffConfig) -> bool:
    """Whether a method under test reads the keys of the tower's attention, which are large to store."""
    names = [name for name in config.methods or RIVALS if of_table(name) and not named_inside(name)]
    return any("keys" in method_class(name).needs for name in names)


def _row_name(method: str) -> str:
    """The name in the rows: a method may be listed under several. Raises ValueError for one that is not known."""
    if is_class_path(method):
        method_class(method)  # raises
        return method
    known = nameable()
    if method not in known:
        near = difflib.get_close_matches(str(method).lower(), known, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"methods must be of {', '.join(known)}, or a class of your own as 'module:Class', not {method!r}{meant}."
        )
    return method if method in DEFAULT_METHODS else method_class(method).name
